{{/* Which GPUs: what is asked for must be one that CUDA, NCCL and nvidia-smi know. */}}

{{/* Domains of other vendors' device plug-ins. Any other may be NVIDIA's: its plug-in takes the domain from RESOURCE_PREFIX
(k8s-device-plugin, api/config/v1/resources.go). */}}
{{- define "mtp.otherVendors" -}}
(^|\.)(amd\.com|google\.com|intel\.com|habana\.ai|huawei\.com|amazon\.com|amazonaws\.com|cambricon\.com|hygon\.com|metax-tech\.com|mthreads\.com|iluvatar\.ai|enflame\.cn|enflame\.com)/
{{- end -}}

{{- define "mtp.checkAccelerator" -}}
{{- $problems := list -}}
{{- $resource := .Values.accelerator.resource -}}
{{- if eq .Values.accelerator.type "cpu" -}}
{{- if not (has $resource (list "" "nvidia.com/gpu")) -}}
{{- $problems = append $problems (printf "accelerator.resource: got %s with accelerator.type=cpu, which asks for no GPU; leave it out or set accelerator.type=nvidia" $resource) -}}
{{- end -}}
{{- else if regexMatch (include "mtp.otherVendors" .) $resource -}}
{{- $problems = append $problems (printf "accelerator.resource: got %s, expected one of NVIDIA's, nvidia.com/gpu, nvidia.com/gpu.shared or a MIG slice nvidia.com/mig-…: the image holds CUDA and NCCL, which no other vendor's devices run" (include "mtp.shown" $resource)) -}}
{{- end -}}
{{- $problems | toJson -}}
{{- end -}}

{{/* Devices of the pods; needs the counts. As JSON. */}}
{{- define "mtp.checkDevices" -}}
{{- $problems := list -}}
{{- $resource := .Values.accelerator.resource -}}
{{- $slice := hasPrefix "nvidia.com/mig-" $resource -}}
{{- range $role := list "head" "trainer" "rollout" -}}
{{- $group := include "mtp.group" (dict "root" $ "role" $role) | fromJson -}}
{{- $gpus := int $group.physicalGpus -}}
{{- if and (gt $gpus 0) (not $resource) (not $group.containerClaims) -}}
{{- $problems = append $problems (printf "accelerator.resource: got nothing, and %s.containerClaims claims no GPUs either; set one of them" $role) -}}
{{- end -}}
{{- if and (gt $gpus 1) (or $slice (hasSuffix ".shared" $resource)) -}}
{{- $problems = append $problems (printf "accelerator.resource: got %s, and pods of %s with %d of it: %s; set %s.gpus=1, or take whole GPUs" $resource $role $gpus (ternary "a process sees one MIG slice, and NCCL (2.29 here) takes no two ranks on slices of one GPU" "two shares can be of one GPU, and NCCL takes no two ranks on one" $slice) $role) -}}
{{- end -}}
{{- end -}}
{{- $problems | uniq | toJson -}}
{{- end -}}

{{/* The memory of each group; needs the counts. As JSON. */}}
{{- define "mtp.checkMemory" -}}
{{- $problems := list -}}
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
{{- $problems | toJson -}}
{{- end -}}
