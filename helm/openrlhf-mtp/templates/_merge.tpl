{{/* How a group's settings are laid over those of `pods`. The rule, as values.yaml states it: maps merge and lists add up, the
group's entry wins, and a null takes away what is below it. No result has a null in it. */}}

{{/* A security context when nobody gives one, as JSON. Argument: `podSecurityContext` or `securityContext`. */}}
{{- define "mtp.defaultContext" -}}
{{- if eq . "podSecurityContext" -}}
{{- dict "runAsNonRoot" true "runAsUser" 1000 "runAsGroup" 1000 "fsGroup" 1000 "fsGroupChangePolicy" "OnRootMismatch" "seccompProfile" (dict "type" "RuntimeDefault") | toJson -}}
{{- else -}}
{{- dict "allowPrivilegeEscalation" false "capabilities" (dict "drop" (list "ALL")) | toJson -}}
{{- end -}}
{{- end -}}

{{/* Put the security contexts of `pods` in their place: those of the user, or the default. Before nulls are dropped: a null in
them takes a key of the default away, which values.yaml cannot hold because Helm would merge it with the user's. Argument:
the values. */}}
{{- define "mtp.resolveContexts" -}}
{{- $pods := .pods | default dict -}}
{{- range list "podSecurityContext" "securityContext" -}}
{{- $context := include "mtp.replaced" (dict "below" (include "mtp.defaultContext" . | fromJson) "above" (get $pods . | default dict)) -}}
{{- $_ := set $pods . (fromJson $context) -}}
{{- end -}}
{{- $_ := set . "pods" $pods -}}
{{- end -}}

{{/* The key by which entries of a list are one and the same; "*" means the whole entry. Other lists are replaced. */}}
{{- define "mtp.entryKeys" -}}
extraEnv: name
extraVolumes: name
initContainers: name
extraContainers: name
resourceClaims: name
containerClaims: name
extraVolumeMounts: mountPath
hostAliases: ip
tolerations: "*"
topologySpread: "*"
envFrom: "*"
startCommands: "*"
{{- end -}}

{{/* Settings of pods: `pods`, and each of the given sections laid over what is below it; a null of a section means the
default. Arguments: root, over (names of sections). JSON: every key of `pods`, and the sections' own. */}}
{{- define "mtp.podSettings" -}}
{{- $made := deepCopy .root.Values.pods -}}
{{- range .over -}}
{{- range $key, $given := get $.root.Values . -}}
{{- $below := get $made $key -}}
{{- if kindIs "invalid" $given -}}
{{- $_ := set $made $key (include "mtp.podDefault" (dict "root" $.root "key" $key) | fromJson).value -}}
{{- else -}}
{{- $_ := set $made $key (include "mtp.laidOver" (dict "root" $.root "key" $key "below" $below "above" $given) | fromJson).value -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- include "mtp.json" $made -}}
{{- end -}}

{{/* {value: what a key of `pods` is when nobody gives it}, as JSON. Arguments: root, key. */}}
{{- define "mtp.podDefault" -}}
{{- if has .key (list "podSecurityContext" "securityContext") -}}
{"value": {{ include "mtp.defaultContext" .key }}}
{{- else -}}
{{- dict "value" (get .root.Values._chart.data.values.pods .key) | toJson -}}
{{- end -}}
{{- end -}}

{{/* {value: a setting laid over the one below it}, as JSON. Arguments: root, key, below, above. */}}
{{- define "mtp.laidOver" -}}
{{- $keys := include "mtp.entryKeys" . | fromYaml -}}
{{- if hasKey $keys .key -}}
{"value": {{ include "mtp.addedUp" (merge (dict "by" (get $keys .key)) .) }}}
{{- else if has .key (list "podSecurityContext" "securityContext") -}}
{"value": {{ include "mtp.replaced" . }}}
{{- else if eq .key "scratch" -}}
{"value": {{ include "mtp.scratchOver" . }}}
{{- else if kindIs "map" .above -}}
{"value": {{ include "mtp.over" . }}}
{{- else -}}
{{- dict "value" .above | toJson -}}
{{- end -}}
{{- end -}}

{{/* A map laid over a map, at every depth; a null takes the key away. Arguments: below, above. JSON. */}}
{{- define "mtp.over" -}}
{{- $made := dict -}}
{{- range $key, $value := .below | default dict -}}{{- $_ := set $made $key $value -}}{{- end -}}
{{- range $key, $value := .above -}}
{{- if kindIs "invalid" $value -}}
{{- $_ := unset $made $key -}}
{{- else if kindIs "map" $value -}}
{{- $below := get $made $key -}}
{{- $_ := set $made $key (include "mtp.over" (dict "below" (ternary $below dict (kindIs "map" $below)) "above" $value) | fromJson) -}}
{{- else -}}
{{- $_ := set $made $key $value -}}
{{- end -}}
{{- end -}}
{{- $made | toJson -}}
{{- end -}}

{{/* A map in place of a map; one that holds nulls alone only takes those keys away. Arguments: below, above. JSON. */}}
{{- define "mtp.replaced" -}}
{{- include "mtp.over" (dict "below" (ternary dict .below (eq (include "mtp.gives" .above) "true")) "above" .above) -}}
{{- end -}}

{{/* "true" when there is anything but nulls in a map, at any depth; `{}` within it counts. */}}
{{- define "mtp.gives" -}}
{{- $gives := false -}}
{{- range $key, $value := . -}}
{{- if kindIs "map" $value -}}
{{- if or (not $value) (include "mtp.gives" $value) -}}{{- $gives = true -}}{{- end -}}
{{- else if not (kindIs "invalid" $value) -}}
{{- $gives = true -}}
{{- end -}}
{{- end -}}
{{- if $gives -}}true{{- end -}}
{{- end -}}

{{/* `scratch`: its volume is one source, which a group's replaces; what a null takes away is the default again. Arguments: root,
below, above. JSON. */}}
{{- define "mtp.scratchOver" -}}
{{- $made := include "mtp.over" . | fromJson -}}
{{- $volume := include "mtp.over" (dict "below" dict "above" (.above.volume | default dict)) | fromJson -}}
{{- if $volume -}}{{- $_ := set $made "volume" $volume -}}{{- end -}}
{{- range $key, $value := .root.Values._chart.data.values.pods.scratch -}}
{{- if not (hasKey $made $key) -}}{{- $_ := set $made $key $value -}}{{- end -}}
{{- end -}}
{{- $made | toJson -}}
{{- end -}}

{{/* Entries of a list and those of another one after them. Of entries with the same key the last is kept, at the place of the
first. Arguments: below, above, by (a key, or "*" for the whole entry). JSON. */}}
{{- define "mtp.addedUp" -}}
{{- $by := .by -}}
{{- $places := dict -}}{{- $order := list -}}
{{- range concat (.below | default list) .above -}}
{{- $place := toJson . -}}
{{- if ne $by "*" -}}{{- $place = trimSuffix "/" (toString (get . $by)) -}}{{- end -}}
{{- if not (hasKey $places $place) -}}{{- $order = append $order $place -}}{{- end -}}
{{- $_ := set $places $place . -}}
{{- end -}}
{{- $made := list -}}
{{- range $order -}}{{- $made = append $made (get $places .) -}}{{- end -}}
{{- $made | toJson -}}
{{- end -}}
