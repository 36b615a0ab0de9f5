{{/* Names of images: the chart puts tag or digest behind them. */}}

{{- define "mtp.checkImage" -}}
{{- $problems := list -}}
{{- if not .Values.image.repository -}}
{{- $problems = append $problems (printf "image.repository: got nothing, expected the registry and name of the image (docker/README.md builds it); %s" (include "mtp.example" .)) -}}
{{- end -}}
{{- range $path, $image := dict "image" .Values.image "tools.image" ((.Values.tools | default dict).image | default dict) -}}
{{- with include "mtp.repositoryProblem" (dict "path" $path "name" (get $image "repository" | default "")) -}}{{- $problems = append $problems . -}}{{- end -}}
{{- end -}}
{{- $problems | toJson -}}
{{- end -}}

{{- define "mtp.example" -}}
helm install RUN helm/openrlhf-mtp --set image.repository=REGISTRY/openrlhf-mtp --set-file job.config=JOB.yaml
{{- end -}}

{{/* What is wrong with an image's name, in words. A registry's port is none of it: registry:5000/team/name. Arguments: path
(`image`), name. */}}
{{- define "mtp.repositoryProblem" -}}
{{- $name := .name -}}
{{- $bare := trim $name -}}
{{- $said := "" -}}
{{- $part := "[a-z0-9]+((\\.|_|__|-+)[a-z0-9]+)*" -}}
{{- $host := "([A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?|\\[[0-9a-fA-F:]+\\])(:[0-9]{1,5})?" -}}
{{- if ne $name $bare -}}
{{- $said = printf "a name without spaces around it; set %s.repository=%s" .path $bare -}}
{{- else if regexMatch "^[A-Za-z]+://" $name -}}
{{- $said = printf "a name without %s; set %s.repository=%s" (regexFind "^[A-Za-z]+://" $name) .path (regexReplaceAll "^[A-Za-z]+://" $name "") -}}
{{- else if contains "@" $name -}}
{{- $said = printf "a name without a digest; set %s.repository=%s and %s.digest=%s" .path (regexReplaceAll "(:[^/@]*)?@.*$" $name "") .path (regexFind "@.*$" $name | trimPrefix "@") -}}
{{- else if contains ":" (base $name) -}}
{{- $said = printf "a name without a tag; set %s.repository=%s and %s.tag=%s" .path (regexReplaceAll ":[^/:]*$" $name "") .path (regexFind ":[^/:]*$" $name | trimPrefix ":") -}}
{{- else if and $name (or (gt (len $name) 255) (not (regexMatch (printf "^(%s/)?%s(/%s)*$" $host $part $part) $name))) -}}
{{- $said = "a registry and a name in lower-case letters and digits, with single dots, dashes or underscores between them, such as registry.example.com/team/openrlhf-mtp" -}}
{{- end -}}
{{- with $said -}}{{- printf "%s.repository: got %s, expected %s" $.path (include "mtp.shown" $name) . -}}{{- end -}}
{{- end -}}
