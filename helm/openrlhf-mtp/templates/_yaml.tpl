{{/* Values as they are written into objects. */}}

{{/* A value as YAML that every parser reads alike: no null at any depth, whole numbers without an exponent (Helm hands all
numbers on as floats), strings quoted where they could be taken for something else. */}}
{{- define "mtp.yaml" -}}
{{- $out := dict -}}
{{- include "mtp.tidy" (dict "value" . "out" $out) -}}
{{- toYaml $out.value -}}
{{- end -}}

{{/* The same as JSON, for `fromJson`. */}}
{{- define "mtp.json" -}}
{{- $out := dict -}}
{{- include "mtp.tidy" (dict "value" . "out" $out) -}}
{{- toJson $out.value -}}
{{- end -}}

{{/* Puts into `out`, under the key `value`, the value without nulls and with whole numbers. Arguments: value, out. */}}
{{- define "mtp.tidy" -}}
{{- $made := .value -}}
{{- if kindIs "map" .value -}}
{{- $made = dict -}}
{{- range $key, $item := .value -}}
{{- if not (kindIs "invalid" $item) -}}
{{- $inner := dict -}}
{{- include "mtp.tidy" (dict "value" $item "out" $inner) -}}
{{- $_ := set $made $key $inner.value -}}
{{- end -}}
{{- end -}}
{{- else if kindIs "slice" .value -}}
{{- $made = list -}}
{{- range .value -}}
{{- if not (kindIs "invalid" .) -}}
{{- $inner := dict -}}
{{- include "mtp.tidy" (dict "value" . "out" $inner) -}}
{{- $made = append $made $inner.value -}}
{{- end -}}
{{- end -}}
{{- else if kindIs "float64" .value -}}
{{- if and (eq .value (floor .value)) (lt .value 1e15) (gt .value -1e15) -}}{{- $made = int64 .value -}}{{- end -}}
{{- end -}}
{{- $_ := set .out "value" $made -}}
{{- end -}}

{{/* A list of named entries as YAML, the name of each first. */}}
{{- define "mtp.named" -}}
{{- range . }}
- name: {{ toYaml .name }}
{{- with omit . "name" }}
  {{- include "mtp.yaml" . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{/* A value as YAML with every text to the byte: toYaml chooses how to write one that starts with spaces or ends with several
lines, but makes a plain end of line of U+0085, which it reads as one. JSON is YAML too. (Elsewhere U+0085 is refused.) */}}
{{- define "mtp.exact" -}}
{{- $json := toJson . -}}
{{- if contains "\u0085" $json -}}{{- replace "\u0085" `\u0085` $json -}}{{- else -}}{{- toYaml . -}}{{- end -}}
{{- end -}}
