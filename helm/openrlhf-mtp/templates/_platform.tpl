{{/* What the image of docker/ runs on. */}}

{{/* A warning, empty where there is nothing to say: nodes that are not x86-64 need an image that this project does not make. */}}
{{- define "mtp.platformWarning" -}}
{{- $asked := list -}}
{{- range $section := list "pods" "head" "trainer" "rollout" -}}
{{- $architecture := get ((index $.Values $section).nodeSelector | default dict) "kubernetes.io/arch" -}}
{{- if and $architecture (ne (toString $architecture) "amd64") -}}{{- $asked = append $asked (printf "%s.nodeSelector" $section) -}}{{- end -}}
{{- end -}}
{{- with $asked -}}
{{ join ", " . }}: nodes that are not x86-64, and the image of docker/ is for x86-64 alone, because openrlhf has no wheel for another (GB200, GH200 and other ARM nodes): image.repository must name one of your own, else its pods end with "exec format error".
{{- end -}}
{{- end -}}
