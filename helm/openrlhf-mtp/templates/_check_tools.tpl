{{/* What of `tools` cannot be meant, as JSON. */}}
{{- define "mtp.checkTools" -}}
{{- $problems := list -}}
{{- $i := .Values.tools.image -}}
{{- if not $i.repository -}}
{{- range $name := list "tag" "digest" -}}
{{- with get $i $name -}}
{{- $problems = append $problems (printf "tools.image.%s: got %s and no tools.image.repository; name the repository of the helper pods' image, or leave it out: they have the run's image then" $name .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $volumes := list "scratch" -}}
{{- range (include "mtp.tool" . | fromJson).extraVolumes -}}{{- $volumes = append $volumes .name -}}{{- end -}}
{{- range .Values.tools.extraVolumeMounts -}}
{{- if not (has .name $volumes) -}}
{{- $problems = append $problems (printf "tools.extraVolumeMounts: got %s at %s, expected a volume of the helper pods: %s; add it to tools.extraVolumes" .name .mountPath (join ", " $volumes)) -}}
{{- end -}}
{{- end -}}
{{- $problems | toJson -}}
{{- end -}}
