{{/* Which small pods there are; _tools.tpl makes them. */}}

{{/* Checks the job file, which it gets in a variable: nothing of the release is there yet. Arguments: root, and where it is
made name and annotations; elsewhere it comes without the file. */}}
{{- define "mtp.checkPod" -}}
{{- $v := .root.Values -}}
{{- $counts := include "mtp.counts" .root | fromJson -}}
{{- $gpus := add (mul $counts.trainer.replicas $counts.trainer.gpus) (mul $counts.rollout.replicas $counts.rollout.gpus) -}}
{{- $shell := printf "printf '%%s' \"$JOB_CONFIG\" > /tmp/job.yaml && exec openrlhf-mtp check /tmp/job.yaml --gpus %d --no-files%s" (ternary 0 (int $gpus) (eq $v.accelerator.type "cpu")) (include "mtp.overrideWords" .root) -}}
{{- $job := dict "name" "JOB_CONFIG" "value" (ternary $v.job.config "" (hasKey . "name") | replace "$" "$$") -}}
{{- include "mtp.toolTemplate" (merge (dict "role" "check" "beforeInstall" true "deadline" $v.job.startupDeadlineSeconds "command" (list "/bin/bash" "-c" $shell) "env" (list $job)) .) -}}
{{- end -}}

{{/* Submits the job and follows it; with an operator, that gives it its command. */}}
{{- define "mtp.submitterPod" -}}
{{- $own := dict "root" . "role" "submitter" "ofRun" true -}}
{{- if eq .Values.backend "rayjob" -}}
{{- include "mtp.toolTemplate" (set $own "container" "ray-job-submitter") -}}
{{- else -}}
{{- $token := include "mtp.tokenEnv" . | fromYamlArray -}}
{{- include "mtp.toolTemplate" (merge (dict "token" (not .Values.job.keepPods) "env" $token "command" (include "mtp.submitCommand" . | fromJsonArray)) $own) -}}
{{- end -}}
{{- end -}}

{{- define "mtp.submitCommand" -}}
{{- $run := include "mtp.run" . -}}
{{- $counts := include "mtp.counts" . | fromJson -}}
{{- $words := list "python" "-m" "openrlhf_mtp.cluster.submit" "--address" (printf "http://%s:8265" (include "mtp.headService" .)) "--name" $run "--retries" (toString .Values.job.retries) "--startup-s" (toString .Values.job.startupDeadlineSeconds) "--deadline-s" (toString .Values.job.deadlineSeconds) -}}
{{- if include "mtp.countsAttempts" . -}}
{{- $words = concat $words (list "--max-attempts" (include "mtp.attempts" .)) -}}
{{- end -}}
{{- if not .Values.job.keepPods -}}
{{- $words = concat $words (list "--memory" (printf "%s-submitter" $run) "--release-after-s" (toString .Values.job.releaseAfterSeconds)) -}}
{{- range $role := list "head" "trainer" "rollout" -}}
{{- $replicas := ternary 1 (get (get $counts $role | default dict) "replicas" | default 0 | int) (eq $role "head") -}}
{{- if gt $replicas 0 -}}
{{- $words = concat $words (list "--group" (printf "%s-%s=%d" $run $role $replicas)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- concat $words (list "--" "bash" "/etc/openrlhf-mtp/run.sh") | toJson -}}
{{- end -}}

{{/* `helm test`. Arguments: root, name, annotations. */}}
{{- define "mtp.testPod" -}}
{{- $root := .root -}}
{{- $shell := printf "python -m openrlhf_mtp.cluster.preflight --run %s %s --busy" (include "mtp.shellWord" (include "mtp.runFolder" $root)) (include "mtp.preflightWords" $root) -}}
{{- $command := list "python" "-m" "openrlhf_mtp.cluster.submit" "--address" (printf "http://%s:8265" (include "mtp.headService" $root)) "--name" (printf "%s-test" (include "mtp.run" $root)) "--retries" "0" "--startup-s" "120" "--again" "--" "bash" "-c" $shell -}}
{{- include "mtp.toolTemplate" (merge (dict "role" "test" "ofRun" true "command" $command "env" (include "mtp.tokenEnv" $root | fromYamlArray)) .) -}}
{{- end -}}

{{- define "mtp.tensorboardPod" -}}
{{- $checkpoints := dict "root" . "name" "checkpoints" -}}
{{- $mount := printf "%s\n  readOnly: true" (include "mtp.mount" $checkpoints | trim) -}}
{{- $port := dict "name" "http" "containerPort" 6006 "protocol" "TCP" -}}
{{- $probe := dict "httpGet" (dict "path" "/" "port" "http") "periodSeconds" 10 -}}
{{- $command := list "tensorboard" "--bind_all" "--port=6006" "--logdir" .Values.storage.checkpoints.mountPath -}}
{{- include "mtp.toolTemplate" (dict "root" . "role" "tensorboard" "stays" true "command" $command "ports" (list $port) "probe" $probe "mounts" $mount "volumes" (include "mtp.volume" $checkpoints)) -}}
{{- end -}}
