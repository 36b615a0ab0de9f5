{{/* What the schedulers and Ray would refuse. */}}

{{- define "mtp.checkScheduling" -}}
{{- $problems := list -}}
{{- $s := .Values.scheduling -}}
{{- if and (ne $s.gang "none") (ne .Values.backend "rayjob") -}}
{{- $problems = append $problems (printf "scheduling.gang: got %s with backend=%s, and only a RayJob is admitted as a whole; set backend=rayjob" $s.gang .Values.backend) -}}
{{- end -}}
{{- if and $s.queue (eq $s.gang "none") -}}
{{- $problems = append $problems (printf "scheduling.queue: got %s and nobody who reads it; set scheduling.gang to kueue, volcano, yunikorn or kai" $s.queue) -}}
{{- end -}}
{{- if and (not $s.queue) (has $s.gang (list "kueue" "kai")) -}}
{{- $problems = append $problems (printf "scheduling.queue: got nothing, expected the queue that %s admits the run to" $s.gang) -}}
{{- end -}}
{{- if and (or $s.topology.level $s.kueuePriorityClass) (ne $s.gang "kueue") -}}
{{- $problems = append $problems "scheduling.topology.level, scheduling.kueuePriorityClass: only Kueue reads them; set scheduling.gang=kueue or leave them out" -}}
{{- end -}}
{{- if and (eq $s.gang "kueue") .Values.job.keepPods -}}
{{- $problems = append $problems "job.keepPods: Kueue admits only runs that give their pods back; set job.keepPods=false" -}}
{{- end -}}
{{- $ray := include "mtp.rayVersion" . -}}
{{- if not (regexMatch "^[0-9]{1,4}\\.[0-9]{1,4}\\.[0-9]{1,4}$" $ray) -}}{{/* said by mtp.checkTexts */}}
{{- else if and .Values.auth.existingSecret (semverCompare "<2.52.0" $ray) -}}
{{- $problems = append $problems (printf "auth.existingSecret: token authentication needs Ray 2.52 or later, and rayVersion is %s" $ray) -}}
{{- end -}}
{{- $problems | toJson -}}
{{- end -}}
