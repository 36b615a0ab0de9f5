{{/* Pods and GPUs of each group, from the job file (placement.countsFrom: job) or the other way round (groups). */}}

{{/* {trainer: {replicas, gpus}, rollout: …, overrides: [key=value]} as JSON: what mtp.init has worked out. */}}
{{- define "mtp.counts" -}}
{{- .Values._chart.counts -}}
{{- end -}}

{{/* The counts, and `problems`: what does not add up, in words. JSON. */}}
{{- define "mtp.count" -}}
{{- $problems := dict "list" list -}}
{{- $job := include "mtp.roles" (dict "root" . "problems" $problems) | fromJson -}}
{{- $counts := dict -}}
{{- if not $problems.list -}}
{{- $from := ternary "mtp.countsFromGroups" "mtp.countsFromJob" (eq .Values.placement.countsFrom "groups") -}}
{{- $counts = include $from (dict "root" . "job" $job "problems" $problems) | fromJson -}}
{{- end -}}
{{- set $counts "problems" $problems.list | toJson -}}
{{- end -}}

{{/* Add a problem. Arguments: problems, text. */}}
{{- define "mtp.problem" -}}
{{- $_ := set .problems "list" (append .problems.list .text) -}}
{{- end -}}

{{/* Replicas and GPUs a pod for `needed` GPUs, as JSON. Arguments: group (its name), replicas, gpus, needed, why (how the need
is made up), unit (GPUs that must be in one pod), problems. Null replicas or gpus are derived. */}}
{{- define "mtp.shape" -}}
{{- $needed := int .needed -}}{{- $unit := int .unit -}}
{{- $shape := dict "replicas" 0 "gpus" 0 -}}
{{- $problem := "" -}}
{{- if eq $needed 0 -}}
{{- if or .gpus .replicas -}}
{{- $problem = printf "%s.replicas, %s.gpus: got %v pods of %v GPUs, expected neither: %s. Leave them out, or change the job" .group .group (.replicas | default "any number of") (.gpus | default "any number of") .why -}}
{{- end -}}
{{- else -}}
{{- $found := include (ternary "mtp.derivedShape" "mtp.givenShape" (kindIs "invalid" .gpus)) . | fromJson -}}
{{- $problem = $found.problem -}}
{{- $shape = omit $found "problem" -}}
{{- if and (not $problem) (ne (mod (int $shape.gpus) $unit) 0) -}}
{{- $problem = printf "%s.gpus: got %d, and an engine of %d GPUs (vllm.tensor_parallel_size) must fit into a pod; set a multiple of %d" .group (int $shape.gpus) $unit $unit -}}
{{- end -}}
{{- if and (not $problem) (gt (int $shape.replicas) 10000) -}}
{{- $problem = printf "%s: the job needs %d pods of %d GPUs (%s), expected 10000 pods at most; change the job" .group (int $shape.replicas) (int $shape.gpus) .why -}}
{{- end -}}
{{- end -}}
{{- with $problem -}}{{- include "mtp.problem" (dict "problems" $.problems "text" .) -}}{{- end -}}
{{- $shape | toJson -}}
{{- end -}}

{{/* The shape with GPUs a pod that the chart chooses: 8 at most, because larger nodes are rare and a pod that fits no node
stays pending. Arguments of mtp.shape. JSON: replicas, gpus, problem. */}}
{{- define "mtp.derivedShape" -}}
{{- $needed := int .needed -}}{{- $unit := int .unit -}}
{{- $gpus := 0 -}}
{{- $problem := "" -}}
{{- if gt $unit 8 -}}
{{- $problem = printf "%s.gpus: got nothing, and an engine of %d GPUs (vllm.tensor_parallel_size) must fit into a pod, which has 8 at most unless told otherwise; lower vllm.tensor_parallel_size, or set %s.gpus to the GPUs of a node that has so many" .group $unit .group -}}
{{- else if kindIs "invalid" .replicas -}}
{{- range $try := until 8 -}}
{{- $size := sub 8 $try | int -}}
{{- if and (eq $gpus 0) (eq (mod $needed $size) 0) (eq (mod $size $unit) 0) -}}{{- $gpus = $size -}}{{- end -}}
{{- end -}}
{{- if eq $gpus 0 -}}
{{- $problem = printf "%s: the job needs %d GPUs there (%s), which pods of 8 at most that hold whole engines of %d GPUs (vllm.tensor_parallel_size) cannot make up; change the job" .group $needed .why $unit -}}
{{- end -}}
{{- else if ne (mod $needed (int .replicas)) 0 -}}
{{- $problem = printf "%s.replicas: got %v, and %d GPUs (%s) cannot be shared evenly among %v pods; set a number of pods that divides %d, or leave it out" .group .replicas $needed .why .replicas $needed -}}
{{- else -}}
{{- $gpus = div $needed (int .replicas) -}}
{{- if gt (int $gpus) 8 -}}
{{- $problem = printf "%s.replicas: got %v, which makes pods of %d GPUs (%s), expected 8 at most; set more replicas, or %s.gpus=%d where nodes have so many" .group .replicas (int $gpus) .why .group (int $gpus) -}}
{{- end -}}
{{- end -}}
{{- dict "replicas" (ternary 0 (div $needed (max 1 (int $gpus))) (eq (int $gpus) 0)) "gpus" $gpus "problem" $problem | toJson -}}
{{- end -}}

{{/* The shape with GPUs a pod that are given. Arguments of mtp.shape. JSON: replicas, gpus, problem. */}}
{{- define "mtp.givenShape" -}}
{{- $needed := int .needed -}}{{- $gpus := int .gpus -}}
{{- $problem := "" -}}
{{- $replicas := div $needed $gpus | int -}}
{{- if kindIs "invalid" .replicas -}}
{{- if ne (mod $needed $gpus) 0 -}}
{{- $problem = printf "%s.gpus: got %d, and the job needs %d GPUs there (%s), which pods of %d cannot make up; set a number that divides %d, or leave it out" .group $gpus $needed .why $gpus $needed -}}
{{- end -}}
{{- else -}}
{{- $replicas = int .replicas -}}
{{- if ne (mul $replicas $gpus | int) $needed -}}
{{- $problem = printf "%s: got %d pods of %d GPUs, that is %d, and the job needs %d (%s); change %s.replicas or %s.gpus, change the job, or set placement.countsFrom=groups to let the groups decide" .group $replicas $gpus (mul $replicas $gpus) $needed .why .group .group -}}
{{- end -}}
{{- end -}}
{{- dict "replicas" $replicas "gpus" $gpus "problem" $problem | toJson -}}
{{- end -}}

{{- define "mtp.countsFromJob" -}}
{{- $job := .job -}}{{- $v := .root.Values -}}
{{- $trainer := 0 -}}
{{- range $job.roles -}}{{- if not .shares -}}{{- $trainer = add $trainer .gpus | int -}}{{- end -}}{{- end -}}
{{- $why := include "mtp.trainerInWords" $job.roles -}}
{{- $engineGpus := mul $job.engines $job.tensorParallel | int -}}
{{- $actor := (first $job.roles).gpus | int -}}
{{- $counts := dict -}}
{{- if lt (int $job.engines) 1 -}}
{{- include "mtp.problem" (dict "problems" .problems "text" "job.config: vllm.num_engines: got nothing or 0, expected 1 or more; set it in the job file, or set placement.countsFrom=groups") -}}
{{- else if and $job.colocatesEngines (ne $engineGpus $actor) -}}
{{- include "mtp.problem" (dict "problems" .problems "text" (printf "job.config: the engines have %d GPUs and the actor %d, and train.colocate_all shares them, so both must be the same; change vllm.num_engines * vllm.tensor_parallel_size or the actor's nodes and GPUs" $engineGpus $actor)) -}}
{{- else -}}
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
{{- $trainerShape := include "mtp.shape" (dict "group" "trainer" "replicas" $v.trainer.replicas "gpus" $v.trainer.gpus "needed" $trainer "why" $why "unit" $unit "problems" .problems) | fromJson -}}
{{- $rolloutShape := include "mtp.shape" (dict "group" "rollout" "replicas" $v.rollout.replicas "gpus" $v.rollout.gpus "needed" $rollout "why" $rolloutWhy "unit" (int $job.tensorParallel) "problems" .problems) | fromJson -}}
{{- $counts = dict "trainer" $trainerShape "rollout" $rolloutShape "overrides" list -}}
{{- end -}}
{{- $counts | toJson -}}
{{- end -}}

{{- define "mtp.countsFromGroups" -}}
{{- $job := .job -}}{{- $v := .root.Values -}}
{{- $problem := include "mtp.groupsProblem" . -}}
{{- $counts := dict -}}
{{- if $problem -}}
{{- include "mtp.problem" (dict "problems" .problems "text" $problem) -}}
{{- else -}}
{{- $trainer := dict "replicas" (int $v.trainer.replicas) "gpus" (int $v.trainer.gpus) -}}
{{- $rollout := dict "replicas" 0 "gpus" 0 -}}
{{- $holds := $trainer -}}
{{- if not $job.colocatesEngines -}}
{{- $rollout = dict "replicas" (int $v.rollout.replicas) "gpus" (int $v.rollout.gpus) -}}
{{- $holds = $rollout -}}
{{- end -}}
{{- $engineGpus := mul $holds.replicas $holds.gpus | int -}}
{{- $overrides := list (printf "vllm.num_engines=%d" (div $engineGpus (int $job.tensorParallel))) -}}
{{- range $job.roles -}}
{{- $overrides = concat $overrides (list (printf "%s.num_nodes=%d" .setting $trainer.replicas) (printf "%s.num_gpus_per_node=%d" .setting $trainer.gpus)) -}}
{{- end -}}
{{- $counts = dict "trainer" $trainer "rollout" $rollout "overrides" $overrides -}}
{{- end -}}
{{- $counts | toJson -}}
{{- end -}}

{{/* Why the groups cannot decide, in words, or nothing. Arguments: root, job. */}}
{{- define "mtp.groupsProblem" -}}
{{- $job := .job -}}{{- $v := .root.Values -}}
{{- $own := list -}}
{{- range rest $job.roles -}}{{- if not .shares -}}{{- $own = append $own .name -}}{{- end -}}{{- end -}}
{{- $shared := $job.colocatesEngines -}}
{{- $holds := ternary "trainer" "rollout" $shared -}}
{{- $pod := get $v $holds -}}
{{- if $own -}}
{{- printf "placement.countsFrom: got groups, and the job has more than one role with trainer GPUs of its own (actor, %s), so that the groups do not say how many each gets; set placement.countsFrom=job" (join ", " $own) -}}
{{- else if and (eq $v.placement.mode "colocated") (not $shared) -}}
placement.countsFrom: got groups with placement.mode=colocated, and the job's engines have GPUs of their own, so that the group does not say how many train; set placement.countsFrom=job or placement.mode=separate
{{- else if or (kindIs "invalid" $v.trainer.replicas) (kindIs "invalid" $v.trainer.gpus) -}}
placement.countsFrom: got groups, so trainer.replicas and trainer.gpus must be given
{{- else if and $shared (or $v.rollout.replicas $v.rollout.gpus) -}}
rollout.replicas, rollout.gpus: expected neither: the engines share the trainer's GPUs (train.colocate_all). Leave them out, or change the job
{{- else if and (not $shared) (or (kindIs "invalid" $v.rollout.replicas) (kindIs "invalid" $v.rollout.gpus)) -}}
placement.countsFrom: got groups, so rollout.replicas and rollout.gpus must be given
{{- else if ne (mod (int $pod.gpus) (int $job.tensorParallel)) 0 -}}
{{- printf "%s.gpus: got %d, and an engine of %v GPUs (vllm.tensor_parallel_size) must fit into a pod; set a multiple of %v" $holds (int $pod.gpus) $job.tensorParallel $job.tensorParallel -}}
{{- end -}}
{{- end -}}
