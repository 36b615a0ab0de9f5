{{/* What each gang scheduler reads from a RayJob's labels. KubeRay hands them on to the pods. */}}
{{- define "mtp.gangLabels" -}}
{{- $s := .Values.scheduling -}}
{{- if eq $s.gang "kueue" -}}
kueue.x-k8s.io/queue-name: {{ $s.queue }}
{{- with $s.kueuePriorityClass }}
kueue.x-k8s.io/priority-class: {{ . }}
{{- end }}
{{- else if eq $s.gang "volcano" -}}
ray.io/scheduler-name: volcano
{{- with $s.queue }}
volcano.sh/queue-name: {{ . }}
{{- end }}
{{- else if eq $s.gang "yunikorn" -}}
ray.io/gang-scheduling-enabled: "true"
yunikorn.apache.org/app-id: {{ include "mtp.run" . }}
{{- with $s.queue }}
yunikorn.apache.org/queue: {{ . }}
{{- end }}
{{- else if eq $s.gang "kai" -}}
kai.scheduler/queue: {{ $s.queue }}
{{- end -}}
{{- end -}}
