{{/* Volumes of a run's pods: the chart's own, in whose place a user's of the same name or path comes. */}}

{{/* Arguments: root, group. */}}
{{- define "mtp.volumes" -}}
{{- $run := include "mtp.run" .root -}}
{{- $own := list (dict "name" "shm" "emptyDir" (dict "medium" "Memory" "sizeLimit" .group.shmSize)) -}}
{{- $own = append $own (merge (dict "name" "scratch") (include "mtp.scratch" .group | fromJson)) -}}
{{- $own = append $own (dict "name" "job" "configMap" (dict "name" $run)) -}}
{{- if .root.Values.job.files -}}
{{- $own = append $own (dict "name" "files" "configMap" (dict "name" (printf "%s-files" $run))) -}}
{{- end -}}
{{- range include "mtp.stores" .root | fromJsonArray -}}
{{- $own = concat $own (include "mtp.volume" (dict "root" $.root "name" .) | fromYamlArray) -}}
{{- end -}}
{{- include "mtp.addedUp" (dict "below" $own "above" .group.extraVolumes "by" "name") | fromJsonArray | include "mtp.named" | trim -}}
{{- end -}}

{{/* Where the Ray container has them. Arguments: root, group. */}}
{{- define "mtp.mounts" -}}
{{- $own := list (dict "name" "shm" "mountPath" "/dev/shm") (include "mtp.scratchMount" .group | fromJson) -}}
{{- $own = append $own (dict "name" "job" "mountPath" "/etc/openrlhf-mtp" "readOnly" true) -}}
{{- if .root.Values.job.files -}}
{{- $own = append $own (dict "name" "files" "mountPath" "/workspace/files" "readOnly" true) -}}
{{- end -}}
{{- range include "mtp.stores" .root | fromJsonArray -}}
{{- $own = concat $own (include "mtp.mount" (dict "root" $.root "name" .) | fromYamlArray) -}}
{{- end -}}
{{- include "mtp.addedUp" (dict "below" $own "above" .group.extraVolumeMounts "by" "mountPath") | fromJsonArray | include "mtp.named" | trim -}}
{{- end -}}

{{/* The source of the scratch volume, as JSON. Argument: a group. */}}
{{- define "mtp.scratch" -}}
{{- $disk := dict -}}
{{- with .scratch.sizeLimit -}}{{- $_ := set $disk "sizeLimit" . -}}{{- end -}}
{{- .scratch.volume | default (dict "emptyDir" $disk) | toJson -}}
{{- end -}}

{{/* The mount of the scratch volume, as JSON. On a volume that pods may share (a folder of the node, a claim) each has a folder of
its own: Ray finds its session by a fixed name in /tmp. Argument: a group. */}}
{{- define "mtp.scratchMount" -}}
{{- $mount := dict "name" "scratch" "mountPath" "/tmp" -}}
{{- $volume := .scratch.volume | default (dict "emptyDir" dict) -}}
{{- $shared := true -}}
{{- range list "emptyDir" "ephemeral" "csi" -}}{{- if hasKey $volume . -}}{{- $shared = false -}}{{- end -}}{{- end -}}
{{- if $shared -}}{{- $_ := set $mount "subPathExpr" "$(POD_NAME)" -}}{{- end -}}
{{- $mount | toJson -}}
{{- end -}}
