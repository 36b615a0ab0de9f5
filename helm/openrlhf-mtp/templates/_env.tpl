{{/* Environment of the containers of a run. */}}

{{/* Environment of a container, what `extraEnv` gives in place of the chart's own. Arguments: root, group. */}}
{{- define "mtp.env" -}}
{{- $given := dict -}}
{{- range .group.extraEnv -}}{{- $_ := set $given .name true -}}{{- end -}}
{{- $variables := list -}}
{{- range include "mtp.ownEnv" . | fromYamlArray -}}
{{- if not (hasKey $given .name) -}}{{- $variables = append $variables . -}}{{- end -}}
{{- end -}}
{{- concat $variables .group.extraEnv | include "mtp.yaml" -}}
{{- end -}}

{{/* NCCL's variables by name, what `extraEnv` gives in place of the chart's own, as JSON. */}}
{{- define "mtp.ncclEnv" -}}
{{- $n := .Values.network -}}
{{- $variables := dict "NCCL_DEBUG" $n.nccl.debug -}}
{{- with $n.nccl.socketInterface -}}{{- $_ := set $variables "NCCL_SOCKET_IFNAME" . -}}{{- end -}}
{{- if $n.rdma.enabled -}}
{{- with $n.nccl.hca -}}{{- $_ := set $variables "NCCL_IB_HCA" . -}}{{- end -}}
{{- if not (kindIs "invalid" $n.nccl.gidIndex) -}}{{- $_ := set $variables "NCCL_IB_GID_INDEX" (toString $n.nccl.gidIndex) -}}{{- end -}}
{{- else -}}
{{- $_ := set $variables "NCCL_IB_DISABLE" "1" -}}
{{- end -}}
{{- mergeOverwrite $variables (deepCopy $n.nccl.extraEnv) | toJson -}}
{{- end -}}

{{/* Environment that the chart gives every pod of a run. Arguments: root, group. */}}
{{- define "mtp.ownEnv" -}}
{{- $v := .root.Values -}}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: OPENRLHF_MTP_ROLE
  value: {{ .group.role }}
- name: OPENRLHF_MTP_PLACEMENT
  value: {{ ternary "anywhere" "roles" (eq $v.placement.mode "colocated") }}
- name: OPENRLHF_MTP_PLACEMENT_TIMEOUT_S
  value: {{ $v.placement.timeoutSeconds | quote }}
{{- if eq $v.accelerator.type "nvidia" }}
{{- $counts := include "mtp.counts" .root | fromJson }}
- name: OPENRLHF_MTP_CLUSTER_GPUS
  value: {{ add (mul $counts.trainer.replicas $counts.trainer.gpus) (mul $counts.rollout.replicas $counts.rollout.gpus) | quote }}
{{- end }}
{{- if and (eq .group.role "head") (include "mtp.shared" (dict "root" .root "name" "checkpoints")) }}
- name: OPENRLHF_MTP_CHECKPOINT_WAIT_S
  value: {{ include "mtp.checkpointWait" .root | quote }}
- name: RAY_JOB_STOP_WAIT_TIME_S{{/* from SIGTERM to SIGKILL when Ray ends a job; 3 if not set */}}
  value: {{ $v.job.gracePeriodSeconds | quote }}
{{- end }}
- name: HF_HOME
  value: {{ printf "%s/hub" (trimSuffix "/" $v.storage.modelCache.mountPath) | quote }}
- name: HOME
  value: /tmp
- name: RAY_USAGE_STATS_ENABLED
  value: "0"
{{- with $v.network.nccl.socketInterface }}
{{- if not (hasPrefix "^" .) }}{{/* gloo takes names only */}}
- name: GLOO_SOCKET_IFNAME
  value: {{ trimPrefix "=" . | quote }}
{{- end }}
{{- end }}
{{- range $name, $value := include "mtp.ncclEnv" .root | fromJson }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- with $v.secrets.huggingface }}
{{- if .name }}
- name: HF_TOKEN
  valueFrom: {secretKeyRef: {name: {{ .name | quote }}, key: {{ .key | quote }}}}
{{- end }}
{{- end }}
{{- with $v.secrets.wandb }}
{{- if .name }}
- name: WANDB_API_KEY
  valueFrom: {secretKeyRef: {name: {{ .name | quote }}, key: {{ .key | quote }}}}
{{- end }}
{{- end }}
{{- include "mtp.authEnv" .root }}
{{- include "mtp.cacheEnv" .root }}
{{- end -}}

{{/* Seconds that a pod or the driver waits for a checkpoint before it stops; the rest of the grace period is for stopping. */}}
{{- define "mtp.checkpointWait" -}}
{{- max 1 (sub (int .Values.job.gracePeriodSeconds) 15) -}}
{{- end -}}

{{/* Ray's token. KubeRay gives it to the pods of a RayJob itself (authOptions). */}}
{{- define "mtp.authEnv" -}}
{{- if eq .Values.backend "statefulset" }}{{ include "mtp.tokenEnv" . }}{{ end }}
{{- end -}}

{{- define "mtp.tokenEnv" -}}
{{- if .Values.auth.existingSecret }}
- name: RAY_AUTH_MODE
  value: token
- name: RAY_AUTH_TOKEN
  valueFrom: {secretKeyRef: {name: {{ .Values.auth.existingSecret | quote }}, key: auth_token}}
{{- end }}
{{- end -}}
