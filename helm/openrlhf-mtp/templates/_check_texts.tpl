{{/* What texts may look like: files/values.json says which value holds which kind of text, and describes the kinds. */}}

{{/* A value as it is shown in a message: short, and quoted where something in it would not be seen. */}}
{{- define "mtp.shown" -}}
{{- $text := . | toString -}}
{{- if kindIs "map" . -}}{{- $text = toJson . -}}{{- end -}}
{{- if gt (len $text) 80 -}}{{- printf "%q… (%d characters)" (trunc 60 $text) (len $text) -}}
{{- else if regexMatch `^[!-~]+( [!-~]+)*$` $text -}}{{- $text -}}
{{- else -}}{{- printf "%q" $text -}}
{{- end -}}
{{- end -}}

{{/* The problems with all texts of the values, as JSON. */}}
{{- define "mtp.checkTexts" -}}
{{- $kinds := .Values._chart.data.kinds -}}
{{- $problems := dict "list" list -}}
{{- range $text := .Values._chart.data.texts -}}
{{- $value := $.Values -}}
{{- range splitList "." .path -}}
{{- if kindIs "invalid" $value -}}{{- else -}}{{- $value = index $value . -}}{{- end -}}
{{- end -}}
{{- if kindIs "map" $value -}}
{{- range $key, $one := $value -}}
{{- with $text.keys -}}{{- include "mtp.checkText" (dict "kind" (index $kinds .) "value" $key "place" (printf "%s, a name" $text.path) "into" $problems) -}}{{- end -}}
{{- with $text.each -}}{{- include "mtp.checkText" (dict "kind" (index $kinds .) "value" $one "place" (printf "%s, %s" $text.path $key) "into" $problems) -}}{{- end -}}
{{- end -}}
{{- else if kindIs "slice" $value -}}
{{- range $at, $one := $value -}}
{{- with $text.each -}}{{- include "mtp.checkText" (dict "kind" (index $kinds .) "value" $one "place" (printf "%s[%d]" $text.path $at) "into" $problems) -}}{{- end -}}
{{- range $field, $kind := $text.fields -}}
{{- include "mtp.checkText" (dict "kind" (index $kinds $kind) "value" (index $one $field) "place" (printf "%s[%d].%s" $text.path $at $field) "into" $problems) -}}
{{- end -}}
{{- end -}}
{{- else if not (or (kindIs "invalid" $value) (and $text.optional (eq (toString $value) ""))) -}}
{{- include "mtp.checkText" (dict "kind" (index $kinds $text.is) "value" $value "place" $text.path "into" $problems) -}}
{{- end -}}
{{- end -}}
{{- $others := omit .Values "_chart" "job" -}}
{{- if contains "\u0085" (toJson (dict "values" $others "job" (omit .Values.job "config" "files"))) -}}
{{- $_ := set $problems "list" (append $problems.list "values: got the character U+0085 (next line), which readers of YAML take for different things; take it out") -}}
{{- end -}}
{{- $problems.list | toJson -}}
{{- end -}}

{{/* Put the problem with one text, if there is one, into a dictionary's `list`. Arguments: kind, value, place (what holds it),
into. */}}
{{- define "mtp.checkText" -}}
{{- if not (kindIs "invalid" .value) -}}
{{- $text := toString .value -}}
{{- if not (and (regexMatch .kind.pattern $text) (le (len $text) (int .kind.most))) -}}
{{- $_ := set .into "list" (append .into.list (printf "%s: got %s, expected %s" .place (include "mtp.shown" .value) .kind.expected)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
