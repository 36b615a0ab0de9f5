{{/* Secrets that are written into the values. They are said, not refused: only a person can tell a secret from a setting. */}}

{{/* What looks like a secret, in words, as a JSON list. Argument: the root. */}}
{{- define "mtp.secretWarnings" -}}
{{- $found := list -}}
{{- range $section := list "pods" "head" "trainer" "rollout" "tools" -}}
{{- $own := get $.Values $section | default dict -}}
{{- $given := list (dict "of" "extraEnv" "env" $own.extraEnv) -}}
{{- range $key := list "initContainers" "extraContainers" -}}
{{- range index $own $key -}}{{- $given = append $given (dict "of" (printf "%s.%s" $key .name) "env" .env) -}}{{- end -}}
{{- end -}}
{{- range $one := $given -}}
{{- range $one.env -}}
{{- if include "mtp.isSecret" . -}}
{{- $found = append $found (printf "%s.%s: %s looks like a secret, and whoever may read the release or its pods reads it; name a Secret with valueFrom.secretKeyRef, and change the secret." $section $one.of .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $found | toJson -}}
{{- end -}}

{{/* "true" for a variable with a password in its address, or named like a secret: whole words at the end of the name, and a value
that is no path, address, number, switch or reference. Argument: an entry of `env`. */}}
{{- define "mtp.isSecret" -}}
{{- $value := toString (.value | default "") -}}
{{- $named := regexMatch "(^|_)(TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|API_?KEY|ACCESS_KEY|SECRET_KEY|PRIVATE_KEY|CREDENTIALS?)$" (upper (toString .name)) -}}
{{- $path := regexMatch `^(~|\.|\.\.)?/[^+=]*$` $value -}}
{{- $address := regexMatch `^[a-z][-a-z0-9+.]*://[^@]*$` $value -}}
{{- $plain := regexMatch `^([-+]?[0-9.]+|(?i:true|false|yes|no|on|off|none)|\$\([A-Za-z0-9_]+\))?$` $value -}}
{{- $password := regexMatch `^[a-z][-a-z0-9+.]*://[^/@]*:[^/@]+@` $value -}}
{{- if or $password (and $named (not (or $path $address $plain))) -}}true{{- end -}}
{{- end -}}
