{{/* What happens before anything is rendered. Every file that makes an object includes mtp.init first, because whichever
Helm renders first must find the values complete and checked. */}}

{{/* Fill in what was set to null, check everything, count pods and GPUs: once a render, kept beside the values under
`_chart`. */}}
{{- define "mtp.init" -}}
{{- if not (hasKey .Values "_chart") -}}
{{- include "mtp.complete" . -}}
{{- $counted := dict "problems" list -}}
{{- if not (include "mtp.jobFileProblems" . | fromJsonArray) -}}{{- $counted = include "mtp.count" . | fromJson -}}{{- end -}}
{{- include "mtp.refuse" (concat (include "mtp.check" . | fromJsonArray) $counted.problems) -}}
{{- $_ := set .Values._chart "counts" (omit $counted "problems" | toJson) -}}
{{- include "mtp.refuse" (include "mtp.checkCounted" . | fromJsonArray) -}}
{{- end -}}
{{- end -}}

{{/* Every value there, in place of a null its default. */}}
{{- define "mtp.complete" -}}
{{- $data := .Files.Get "files/values.json" | fromJson -}}
{{- $_ := set .Values "_chart" (dict "data" $data) -}}
{{- include "mtp.resolveContexts" .Values -}}
{{- include "mtp.fill" (dict "values" .Values "defaults" $data.values "free" $data.free "prefix" "") -}}
{{- range $group, $own := $data.groups -}}{{/* what else a group has is that of `pods`: mtp.group */}}
{{- if kindIs "invalid" (index $.Values $group) -}}{{- $_ := set $.Values $group dict -}}{{- end -}}
{{- include "mtp.fill" (dict "values" (index $.Values $group) "defaults" $own "free" list "prefix" "") -}}
{{- end -}}
{{- end -}}

{{/* Put the default in place of every null, in the given dictionary. Helm takes a key that is set to null away, so that a
template would find nothing; a null in a map of free keys takes that key away and stays so. A whole number becomes an
integer: Helm reads every number as a float, and prints a large one as 1.2096e+06. Arguments: values, defaults, free
(dotted names of the maps of free keys), prefix. */}}
{{- define "mtp.fill" -}}
{{- range $key, $default := .defaults -}}
{{- $given := index $.values $key -}}
{{- if kindIs "invalid" $given -}}
{{- if not (kindIs "invalid" $default) -}}{{- $given = deepCopy $default -}}{{- end -}}
{{- $_ := set $.values $key $given -}}
{{- end -}}
{{- $name := printf "%s%s" $.prefix $key -}}
{{- if and (kindIs "map" $given) (kindIs "map" $default) (not (has $name $.free)) -}}
{{- include "mtp.fill" (dict "values" $given "defaults" $default "free" $.free "prefix" (printf "%s." $name)) -}}
{{- else if kindIs "map" $given -}}
{{- include "mtp.dropNulls" $given -}}
{{- else if kindIs "slice" $given -}}
{{- range $given -}}{{- include "mtp.dropNulls" . -}}{{- end -}}
{{- else if and (kindIs "float64" $given) (eq (printf "%v" (floor $given)) (printf "%v" $given)) -}}
{{- $_ := set $.values $key (int64 $given) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Take every key with null out of a value, at any depth and in place. */}}
{{- define "mtp.dropNulls" -}}
{{- if kindIs "map" . -}}
{{- range $key := keys . -}}
{{- $value := index $ $key -}}
{{- if kindIs "invalid" $value -}}{{- $_ := unset $ $key -}}{{- else -}}{{- include "mtp.dropNulls" $value -}}{{- end -}}
{{- end -}}
{{- else if kindIs "slice" . -}}
{{- range . -}}{{- include "mtp.dropNulls" . -}}{{- end -}}
{{- end -}}
{{- end -}}
