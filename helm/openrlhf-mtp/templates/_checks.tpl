{{/* Everything that would fail minutes later, said now. All problems of the values are listed at once; what is wrong with the
job's counts is said by _counts.tpl. */}}
{{- define "mtp.check" -}}
{{- $v := .Values -}}
{{- $problems := list -}}
{{- $example := "helm install RUN helm/openrlhf-mtp --set image.repository=REGISTRY/openrlhf-mtp --set-file job.config=JOB.yaml" -}}
{{- if not $v.image.repository -}}
{{- $problems = append $problems (printf "image.repository: got nothing, expected the registry and name of the image (docker/README.md builds it); %s" $example) -}}
{{- end -}}
{{- if not $v.job.config -}}
{{- $problems = append $problems (printf "job.config: got nothing, expected the text of a job file; %s" $example) -}}
{{- else -}}
{{- $problems = concat $problems (include "mtp.checkJob" . | fromJsonArray) -}}
{{- end -}}
{{- $longest := ternary 38 34 (eq $v.backend "rayjob") -}}
{{- if gt (len .Release.Name) $longest -}}
{{- $problems = append $problems (printf "release name: got %s of %d characters, expected at most %d, because pods carry it with a hash in their names; choose a shorter one" .Release.Name (len .Release.Name) $longest) -}}
{{- end -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" .Release.Name) -}}
{{- $problems = append $problems (printf "release name: got %s, expected lower-case letters, digits and dashes that start with a letter, because KubeRay makes a Service of it; choose another" .Release.Name) -}}
{{- end -}}
{{- $checks := list "mtp.checkTexts" "mtp.checkScheduling" "mtp.checkNetwork" "mtp.checkStorage" -}}
{{- $checks = append $checks "mtp.checkPeers" -}}
{{- $checks = append $checks "mtp.checkQueues" -}}
{{- $checks = append $checks "mtp.checkAttempts" -}}
{{- $checks = append $checks "mtp.checkPods" -}}
{{- range $check := $checks -}}{{- $problems = concat $problems (include $check $ | fromJsonArray) -}}{{- end -}}
{{- include "mtp.refuse" $problems -}}
{{- end -}}

{{/* Fail with a list of problems, if there is one. */}}
{{- define "mtp.refuse" -}}
{{- with . -}}
{{- fail (printf "\n\nThese values cannot run:\n  - %s\n" (join "\n  - " .)) -}}
{{- end -}}
{{- end -}}

{{- define "mtp.checkJob" -}}
{{- $problems := list -}}
{{- $job := fromYaml .Values.job.config -}}
{{- if and (hasKey $job "Error") (eq (len $job) 1) -}}
{{- $problems = append $problems (printf "job.config: not valid YAML: %v" $job.Error) -}}
{{- else if not $job -}}
{{- $problems = append $problems "job.config: got no section, expected a job file with sections such as `actor:` and `mtp:`" -}}
{{- end -}}
{{- if get (include "mtp.settings" . | fromJson) "logger.wandb.key" -}}
{{- $problems = append $problems "job.config, job.overrides: logger.wandb.key is a secret, which must not be in values; name the Secret that holds it in secrets.wandb" -}}
{{- end -}}
{{- if and .Values.job.suspend (ne .Values.backend "rayjob") -}}
{{- $problems = append $problems "job.suspend: only the rayjob backend can hold a run back; set backend=rayjob" -}}
{{- end -}}
{{- if and .Values.job.suspend .Values.job.keepPods -}}
{{- $problems = append $problems "job.suspend: KubeRay suspends only runs whose pods it may delete; set job.keepPods=false" -}}
{{- end -}}
{{- if ge (int .Values.job.startupDeadlineSeconds) (int .Values.job.deadlineSeconds) -}}
{{- $problems = append $problems (printf "job.startupDeadlineSeconds: got %d, expected less than job.deadlineSeconds, %d" (int .Values.job.startupDeadlineSeconds) (int .Values.job.deadlineSeconds)) -}}
{{- end -}}
{{- $problems | toJson -}}
{{- end -}}

{{- define "mtp.checkScheduling" -}}
{{- $problems := list -}}
{{- $s := .Values.scheduling -}}
{{- if and (ne $s.gang "none") (ne .Values.backend "rayjob") -}}
{{- $problems = append $problems (printf "scheduling.gang: got %s with backend=%s, and only a RayJob is admitted as a whole; set backend=rayjob" $s.gang .Values.backend) -}}
{{- end -}}
{{- if and $s.queue (eq $s.gang "none") -}}
{{- $problems = append $problems (printf "scheduling.queue: got %s and nobody who reads it; set scheduling.gang to kueue, volcano, yunikorn or kai" $s.queue) -}}
{{- end -}}
{{- if and (not $s.queue) (has $s.gang (list "kueue" "kai")) -}}
{{- $problems = append $problems (printf "scheduling.queue: got nothing, expected the queue that %s admits the run to" $s.gang) -}}
{{- end -}}
{{- if and (or $s.topology.level $s.kueuePriorityClass) (ne $s.gang "kueue") -}}
{{- $problems = append $problems "scheduling.topology.level, scheduling.kueuePriorityClass: only Kueue reads them; set scheduling.gang=kueue or leave them out" -}}
{{- end -}}
{{- if and (eq $s.gang "kueue") .Values.job.keepPods -}}
{{- $problems = append $problems "job.keepPods: Kueue admits only runs that give their pods back; set job.keepPods=false" -}}
{{- end -}}
{{- if and .Values.auth.existingSecret (semverCompare "<2.52.0" (include "mtp.rayVersion" .)) -}}
{{- $problems = append $problems (printf "auth.existingSecret: token authentication needs Ray 2.52 or later, and rayVersion is %s" (include "mtp.rayVersion" .)) -}}
{{- end -}}
{{- $problems | toJson -}}
{{- end -}}

{{- define "mtp.checkNetwork" -}}
{{- $problems := list -}}
{{- $n := .Values.network -}}
{{- if and $n.nccl.hca (not $n.rdma.enabled) -}}
{{- $problems = append $problems (printf "network.nccl.hca: got %s without RDMA devices in the pods, and NCCL would hang on half an InfiniBand; set network.rdma.enabled=true or leave it out" $n.nccl.hca) -}}
{{- end -}}
{{- if and $n.rdma.enabled (eq .Values.accelerator.type "cpu") -}}
{{- $problems = append $problems "network.rdma.enabled: got true with accelerator.type=cpu; RDMA is for GPU pods" -}}
{{- end -}}
{{- if and $n.rdma.enabled (not $n.rdma.resource) -}}
{{- $problems = append $problems "network.rdma.resource: got nothing, expected the resource that the RDMA device plug-in offers, for example rdma/hca" -}}
{{- end -}}
{{- $problems | toJson -}}
{{- end -}}

{{- define "mtp.checkStorage" -}}
{{- $problems := list -}}
{{- $paths := dict -}}
{{- range $name := list "checkpoints" "modelCache" "data" -}}
{{- $one := include "mtp.storageOf" (dict "root" $ "name" $name) | fromJson -}}
{{- $given := list -}}
{{- if $one.existingClaim -}}{{- $given = append $given "existingClaim" -}}{{- end -}}
{{- if $one.create -}}{{- $given = append $given "create" -}}{{- end -}}
{{- if $one.volume -}}{{- $given = append $given "volume" -}}{{- end -}}
{{- if gt (len $given) 1 -}}
{{- $problems = append $problems (printf "storage.%s: got %s, expected one of them" $name (join " and " $given)) -}}
{{- end -}}
{{- if hasKey $paths $one.mountPath -}}
{{- $problems = append $problems (printf "storage.%s.mountPath: got %s, which storage.%s has already" $name $one.mountPath (get $paths $one.mountPath)) -}}
{{- end -}}
{{- if has (trimSuffix "/" $one.mountPath) (list "/workspace" "/tmp" "/dev/shm" "/etc/openrlhf-mtp" "/workspace/files" "/workspace/examples") -}}
{{- $problems = append $problems (printf "storage.%s.mountPath: got %s, which would hide the image's or the chart's own files; choose another" $name $one.mountPath) -}}
{{- end -}}
{{- $_ := set $paths $one.mountPath $name -}}
{{- end -}}
{{- if and .Values.monitoring.tensorboard (not (include "mtp.shared" (dict "root" . "name" "checkpoints"))) -}}
{{- $problems = append $problems "monitoring.tensorboard: it reads the run folders and storage.checkpoints names no volume; give storage.checkpoints.existingClaim, create or volume" -}}
{{- end -}}
{{- $problems | toJson -}}
{{- end -}}

{{/* The memory of each group; needs the counts. */}}
{{- define "mtp.checkGroups" -}}
{{- $problems := include "mtp.checkTogether" . | fromJsonArray -}}
{{- $leastShm := include "mtp.bytes" "256Mi" | float64 -}}{{/* half of it is Ray's object store, 75 MiB at least; the rest is NCCL's */}}
{{- range $role := list "head" "trainer" "rollout" -}}
{{- $group := include "mtp.group" (dict "root" $ "role" $role) | fromJson -}}
{{- $shm := include "mtp.bytes" $group.shmSize | float64 -}}
{{- if lt $shm $leastShm -}}
{{- $problems = append $problems (printf "%s.shmSize: got %s, expected 256Mi or more: Ray's object store (half of it) and NCCL do not start in less; raise it" $role $group.shmSize) -}}
{{- end -}}
{{- $memory := include "mtp.bytes" $group.memory | float64 -}}
{{- if gt (mulf 2.0 $shm) $memory -}}
{{- $problems = append $problems (printf "%s.shmSize: got %s, expected at most half of the pod's memory, %s: what is written to /dev/shm counts as memory; lower it or raise %s.memory" $role $group.shmSize $group.memory $role) -}}
{{- end -}}
{{- end -}}
{{- include "mtp.refuse" $problems -}}
{{- end -}}
