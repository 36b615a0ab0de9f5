{{/* Labels and annotations that are the chart's or a controller's own: the same key twice is no valid object, and another value
would take a pod away from its run. */}}

{{- define "mtp.checkLabels" -}}
{{- $gangs := dict "kueue" "kueue.x-k8s.io/" "volcano" "volcano.sh/" "yunikorn" "yunikorn.apache.org/" "kai" "kai.scheduler/" -}}
{{- $taken := list "openrlhf-mtp.io/" "helm.sh/" "meta.helm.sh/" "ray.io/" -}}
{{- with get $gangs .Values.scheduling.gang -}}{{- $taken = append $taken . -}}{{- end -}}
{{- $own := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/version" "app.kubernetes.io/managed-by" -}}
{{- $problems := list -}}
{{- range $path := .Values._chart.data.free -}}
{{- if regexMatch "(^|\\.)(labels|annotations|podMonitorLabels|dashboardLabels)$" $path -}}
{{- $value := $.Values -}}
{{- range splitList "." $path -}}{{- if kindIs "map" $value -}}{{- $value = index $value . -}}{{- end -}}{{- end -}}
{{- range $key, $_ := $value -}}
{{- $domain := regexFind "^[^/]*/" $key -}}
{{- if or (has $key $own) (has $domain $taken) -}}
{{- $problems = append $problems (printf "%s: got %s, which %s; leave it out" $path $key (ternary "the chart or Helm sets" (printf "belongs to %s" $domain | trimSuffix "/") (or (has $key $own) (has $domain (list "openrlhf-mtp.io/" "helm.sh/" "meta.helm.sh/"))))) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $problems | toJson -}}
{{- end -}}
