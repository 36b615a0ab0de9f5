{{/* What runs in a Ray pod beside Ray: its logs are shown and kept. */}}

{{/* How many bytes of each pod's logs are kept in the run folder; empty: none. */}}
{{- define "mtp.podLogsKept" -}}
{{- $limit := include "mtp.bytes" .Values.job.logLimit | int64 -}}
{{- if and $limit (include "mtp.shared" (dict "root" . "name" "checkpoints")) -}}{{ $limit }}{{- end -}}
{{- end -}}

{{- define "mtp.checkLogs" -}}
{{- $problems := list -}}
{{- $limit := include "mtp.bytes" .Values.job.logLimit | int64 -}}
{{- if and $limit (lt $limit 16777216) -}}
{{- $problems = append $problems (printf "job.logLimit: got %s, expected 16Mi or more, because a file gets a sixteenth of it and a traceback must fit; empty keeps no logs" .Values.job.logLimit) -}}
{{- end -}}
{{- toJson $problems -}}
{{- end -}}

{{/* A word of the shell that follows the pod's logs until the container ends. It is a grandchild of the first process, which
so has no job of its own: `exec`, signals and exit codes are Ray's. It cannot fail: the run does not depend on its logs. */}}
{{- define "mtp.podLogs" -}}
{{- $words := list "python -m openrlhf_mtp.cluster.pod_logs" -}}
{{- with include "mtp.podLogsKept" . -}}
{{- $words = concat $words (list "--keep" (include "mtp.shellWord" (printf "%s/logs" (include "mtp.runFolder" $))) "--limit-bytes" .) -}}
{{- end -}}
({{ join " " $words }} </dev/null &)
{{- end -}}

{{/* The container's arguments for KubeRay, which runs them in front of its own `ray start`: `ARGUMENTS && ulimit …; ray start …`
in one shell (read in its source, 1.6.2 and 1.7.0: BuildPod). Arguments: root, group. */}}
{{- define "mtp.besideRay" -}}
args:
  - |-
    {{- if .group.startCommands }}
    {{- include "mtp.startCommands" .group | trim | nindent 4 }}
    {{- end }}
    {{- with include "mtp.checkCache" .root }}
    {{- nindent 4 . }}
    {{- end }}
    {{- include "mtp.podLogs" .root | nindent 4 }}
{{- end -}}

{{/* A group's `startCommands` as lines of a shell; one that fails ends it. Kubernetes would replace $(NAME) in arguments. */}}
{{- define "mtp.startCommands" -}}
{{- range .startCommands -}}
{
{{ replace "$(" "$$(" . | trim }}
} || exit 1
{{ end -}}
{{- end -}}
