{{/* Pods and GPUs of each group, from the job file (placement.countsFrom: job) or the other way round (groups). */}}

{{/* Replicas and GPUs a pod for `needed` GPUs, as JSON. Arguments: group (its name), replicas, gpus, needed, why (how the need
is made up), unit (GPUs that must be in one pod). Null replicas or gpus are derived. */}}
{{- define "mtp.shape" -}}
{{- $needed := int .needed -}}{{- $unit := int .unit -}}
{{- $gpus := .gpus -}}{{- $replicas := .replicas -}}
{{- if eq $needed 0 -}}
{{- if or $gpus $replicas -}}
{{- fail (printf "%s.replicas, %s.gpus: got %v pods of %v GPUs, expected neither: %s. Leave them out, or change the job" .group .group ($replicas | default "any number of") ($gpus | default "any number of") .why) -}}
{{- end -}}
{{- dict "replicas" 0 "gpus" 0 | toJson -}}
{{- else -}}
{{- if and (kindIs "invalid" $gpus) (kindIs "invalid" $replicas) -}}
{{- range $try := until 8 -}}
{{- $size := sub 8 $try | int -}}
{{- if and (kindIs "invalid" $gpus) (eq (mod $needed $size) 0) (eq (mod $size $unit) 0) -}}{{- $gpus = $size -}}{{- end -}}
{{- end -}}
{{- if kindIs "invalid" $gpus -}}{{- $gpus = $unit -}}{{- end -}}
{{- else if kindIs "invalid" $gpus -}}
{{- if ne (mod $needed (int $replicas)) 0 -}}
{{- fail (printf "%s.replicas: got %v, and %d GPUs (%s) cannot be shared evenly among %v pods; set a number of pods that divides %d, or leave it out" .group $replicas $needed .why $replicas $needed) -}}
{{- end -}}
{{- $gpus = div $needed (int $replicas) -}}
{{- end -}}
{{- $gpus = int $gpus -}}
{{- if kindIs "invalid" $replicas -}}
{{- if ne (mod $needed $gpus) 0 -}}
{{- fail (printf "%s.gpus: got %d, and the job needs %d GPUs there (%s), which pods of %d cannot make up; set a number that divides %d, or leave it out" .group $gpus $needed .why $gpus $needed) -}}
{{- end -}}
{{- $replicas = div $needed $gpus -}}
{{- end -}}
{{- $replicas = int $replicas -}}
{{- if ne (mul $replicas $gpus | int) $needed -}}
{{- fail (printf "%s: got %d pods of %d GPUs, that is %d, and the job needs %d (%s); change %s.replicas or %s.gpus, change the job, or set placement.countsFrom=groups to let the groups decide" .group $replicas $gpus (mul $replicas $gpus) $needed .why .group .group) -}}
{{- end -}}
{{- if ne (mod $gpus $unit) 0 -}}
{{- fail (printf "%s.gpus: got %d, and an engine of %d GPUs (vllm.tensor_parallel_size) must fit into a pod; set a multiple of %d" .group $gpus $unit $unit) -}}
{{- end -}}
{{- dict "replicas" $replicas "gpus" $gpus | toJson -}}
{{- end -}}
{{- end -}}

{{/* {trainer: {replicas, gpus}, rollout: …, overrides: [key=value]} as JSON: what mtp.init has worked out. */}}
{{- define "mtp.counts" -}}
{{- .Values._chart.counts -}}
{{- end -}}

{{- define "mtp.count" -}}
{{- $job := include "mtp.roles" . | fromJson -}}
{{- $from := ternary "mtp.countsFromGroups" "mtp.countsFromJob" (eq .Values.placement.countsFrom "groups") -}}
{{- include $from (dict "root" . "job" $job) -}}
{{- end -}}

{{- define "mtp.countsFromJob" -}}
{{- $job := .job -}}{{- $v := .root.Values -}}
{{- $trainer := 0 -}}
{{- range $job.roles -}}{{- if not .shares -}}{{- $trainer = add $trainer .gpus | int -}}{{- end -}}{{- end -}}
{{- $why := include "mtp.trainerInWords" $job.roles -}}
{{- if lt (int $job.engines) 1 -}}
{{- fail "job.config: vllm.num_engines: got nothing or 0, expected 1 or more; set it in the job file, or set placement.countsFrom=groups" -}}
{{- end -}}
{{- $engineGpus := mul $job.engines $job.tensorParallel | int -}}
{{- $actor := (first $job.roles).gpus | int -}}
{{- if and $job.colocatesEngines (ne $engineGpus $actor) -}}
{{- fail (printf "job.config: the engines have %d GPUs and the actor %d, and train.colocate_all shares them, so both must be the same; change vllm.num_engines * vllm.tensor_parallel_size or the actor's nodes and GPUs" $engineGpus $actor) -}}
{{- end -}}
{{- $engineWhy := printf "vllm.num_engines %v x vllm.tensor_parallel_size %v" $job.engines $job.tensorParallel -}}
{{- $rollout := ternary 0 $engineGpus $job.colocatesEngines -}}
{{- $rolloutWhy := ternary "the engines share the trainer's GPUs (train.colocate_all)" $engineWhy $job.colocatesEngines -}}
{{- $unit := 1 -}}
{{- if $job.colocatesEngines -}}{{- $unit = int $job.tensorParallel -}}{{- end -}}
{{- if eq $v.placement.mode "colocated" -}}
{{- if not $job.colocatesEngines -}}{{- $why = printf "%s, engines %d" $why $engineGpus -}}{{- end -}}
{{- $trainer = add $trainer $rollout | int -}}
{{- $rollout = 0 -}}
{{- $rolloutWhy = "placement.mode is colocated, so the trainer's pods hold the engines" -}}
{{- $unit = int $job.tensorParallel -}}
{{- end -}}
{{- $trainerShape := include "mtp.shape" (dict "group" "trainer" "replicas" $v.trainer.replicas "gpus" $v.trainer.gpus "needed" $trainer "why" $why "unit" $unit) | fromJson -}}
{{- $rolloutShape := include "mtp.shape" (dict "group" "rollout" "replicas" $v.rollout.replicas "gpus" $v.rollout.gpus "needed" $rollout "why" $rolloutWhy "unit" (int $job.tensorParallel)) | fromJson -}}
{{- dict "trainer" $trainerShape "rollout" $rolloutShape "overrides" list | toJson -}}
{{- end -}}

{{- define "mtp.countsFromGroups" -}}
{{- $job := .job -}}{{- $v := .root.Values -}}
{{- $own := list -}}
{{- range rest $job.roles -}}{{- if not .shares -}}{{- $own = append $own .name -}}{{- end -}}{{- end -}}
{{- if $own -}}
{{- fail (printf "placement.countsFrom: got groups, and the job has more than one role with trainer GPUs of its own (actor, %s), so that the groups do not say how many each gets; set placement.countsFrom=job" (join ", " $own)) -}}
{{- end -}}
{{- $shared := or $job.colocatesEngines false -}}
{{- if and (eq $v.placement.mode "colocated") (not $shared) -}}
{{- fail "placement.countsFrom: got groups with placement.mode=colocated, and the job's engines have GPUs of their own, so that the group does not say how many train; set placement.countsFrom=job or placement.mode=separate" -}}
{{- end -}}
{{- if or (kindIs "invalid" $v.trainer.replicas) (kindIs "invalid" $v.trainer.gpus) -}}
{{- fail "placement.countsFrom: got groups, so trainer.replicas and trainer.gpus must be given" -}}
{{- end -}}
{{- $trainerGpus := mul $v.trainer.replicas $v.trainer.gpus | int -}}
{{- $engineGpus := $trainerGpus -}}{{- $pod := int $v.trainer.gpus -}}{{- $group := "trainer" -}}
{{- $rollout := dict "replicas" 0 "gpus" 0 -}}
{{- if $shared -}}
{{- if or $v.rollout.replicas $v.rollout.gpus -}}
{{- fail "rollout.replicas, rollout.gpus: expected neither: the engines share the trainer's GPUs (train.colocate_all). Leave them out, or change the job" -}}
{{- end -}}
{{- else -}}
{{- if or (kindIs "invalid" $v.rollout.replicas) (kindIs "invalid" $v.rollout.gpus) -}}
{{- fail "placement.countsFrom: got groups, so rollout.replicas and rollout.gpus must be given" -}}
{{- end -}}
{{- $rollout = dict "replicas" (int $v.rollout.replicas) "gpus" (int $v.rollout.gpus) -}}
{{- $engineGpus = mul $v.rollout.replicas $v.rollout.gpus | int -}}{{- $pod = int $v.rollout.gpus -}}{{- $group = "rollout" -}}
{{- end -}}
{{- if ne (mod $pod (int $job.tensorParallel)) 0 -}}
{{- fail (printf "%s.gpus: got %d, and an engine of %v GPUs (vllm.tensor_parallel_size) must fit into a pod; set a multiple of %v" $group $pod $job.tensorParallel $job.tensorParallel) -}}
{{- end -}}
{{- $overrides := list (printf "vllm.num_engines=%d" (div $engineGpus (int $job.tensorParallel))) -}}
{{- range $job.roles -}}
{{- $overrides = concat $overrides (list (printf "%s.num_nodes=%d" .setting (int $v.trainer.replicas)) (printf "%s.num_gpus_per_node=%d" .setting (int $v.trainer.gpus))) -}}
{{- end -}}
{{- dict "trainer" (dict "replicas" (int $v.trainer.replicas) "gpus" (int $v.trainer.gpus)) "rollout" $rollout "overrides" $overrides | toJson -}}
{{- end -}}
