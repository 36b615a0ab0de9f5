{{/* A group's settings: `pods`, with the group's own on top, and what is derived from its GPUs. */}}

{{/* Bytes of a quantity such as 8Gi. */}}
{{- define "mtp.bytes" -}}
{{- $number := regexFind "^[0-9.]+" . | float64 -}}
{{- $unit := regexFind "[A-Za-z]*$" . -}}
{{- $factors := dict "" 1 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- printf "%.0f" (mulf $number (get $factors $unit)) -}}
{{- end -}}

{{/* Whole CPUs of a quantity such as 4, "1.5" or 500m; at least 1. */}}
{{- define "mtp.wholeCpus" -}}
{{- $text := toString . -}}
{{- if hasSuffix "m" $text -}}
{{- max 1 (div (int (trimSuffix "m" $text)) 1000) -}}
{{- else -}}
{{- max 1 (int (floor (float64 $text))) -}}
{{- end -}}
{{- end -}}

{{/* Arguments: root, role. JSON: every key of `pods`, and role, replicas, gpus, physicalGpus. Made once a render: it is asked
for some thirty times. */}}
{{- define "mtp.group" -}}
{{- $made := .root.Values._chart -}}
{{- if not (hasKey $made .role) -}}{{- $_ := set $made .role (include "mtp.groupMade" .) -}}{{- end -}}
{{- get $made .role -}}
{{- end -}}

{{- define "mtp.groupMade" -}}
{{- $v := .root.Values -}}
{{- $shape := dict "replicas" 1 "gpus" 0 -}}
{{- if ne .role "head" -}}{{- $shape = get (include "mtp.counts" .root | fromJson) .role -}}{{- end -}}
{{- $group := include "mtp.podSettings" (dict "root" .root "over" (list .role)) | fromJson -}}
{{- $gpus := int $shape.gpus -}}
{{- if or (kindIs "invalid" $group.cpu) (eq (toString $group.cpu) "") -}}{{- $group = set $group "cpu" (add 4 (mul 4 $gpus)) -}}{{- end -}}
{{- $group = set $group "memory" ($group.memory | default (printf "%dGi" (add 8 (mul 20 $gpus)))) -}}
{{- $group = set $group "shmSize" ($group.shmSize | default (printf "%dGi" (add 2 (mul 4 $gpus)))) -}}
{{- $group = set $group "role" .role -}}
{{- $group = set $group "replicas" (int $shape.replicas) -}}
{{- $group = set $group "gpus" $gpus -}}
{{- $group = set $group "physicalGpus" (ternary 0 $gpus (eq $v.accelerator.type "cpu")) -}}
{{- $group | toJson -}}
{{- end -}}

{{/* The parameters of `ray start`, as JSON of strings. Argument: a group. */}}
{{- define "mtp.rayStart" -}}
{{- $cpus := max (int (include "mtp.wholeCpus" .cpu)) (add 4 .gpus) -}}
{{- $store := div (include "mtp.bytes" .shmSize | int64) 2 -}}
{{- $parameters := dict "num-cpus" (toString $cpus) "num-gpus" (toString .gpus) "object-store-memory" (toString $store) "metrics-export-port" "8080" "dashboard-agent-listen-port" "52365" -}}
{{- if eq .role "head" -}}
{{- $parameters = merge $parameters (dict "dashboard-host" "0.0.0.0" "disable-usage-stats" "true") -}}
{{- end -}}
{{- $parameters | toJson -}}
{{- end -}}
