{{/* The templates of all pods of a run and beside it, as JSON, as a ReplicaSet may hold them: it starts its pods again for
ever, which is all that it would refuse of ours. */}}
{{- define "mtp.podTemplates" -}}
{{- $texts := list -}}
{{- range $role := list "head" "trainer" "rollout" -}}
{{- $group := include "mtp.group" (dict "root" $ "role" $role) | fromJson -}}
{{- if gt (int $group.replicas) 0 -}}
{{- $texts = append $texts (include "mtp.podTemplate" (dict "root" $ "role" $role)) -}}
{{- end -}}
{{- end -}}
{{- if or (eq .Values.backend "statefulset") (ne .Values.scheduling.gang "kai") -}}{{- $texts = append $texts (include "mtp.submitterPod" .) -}}{{- end -}}
{{- if .Values.preflight.checkJob -}}{{- $texts = append $texts (include "mtp.checkPod" (dict "root" .)) -}}{{- end -}}
{{- if .Values.monitoring.tensorboard -}}{{- $texts = append $texts (include "mtp.tensorboardPod" .) -}}{{- end -}}
{{- $templates := list -}}
{{- range $texts -}}
{{- $template := fromYaml . -}}
{{- $_ := set $template.metadata.labels "openrlhf-mtp.io/podcheck" "true" -}}
{{- $_ := set $template "spec" (omit $template.spec "restartPolicy" "activeDeadlineSeconds") -}}
{{- $templates = append $templates $template -}}
{{- end -}}
{{- $templates | toJson -}}
{{- end -}}
