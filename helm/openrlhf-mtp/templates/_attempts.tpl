{{/* How often a run is started again. Where its folder outlives the pods, the run's script counts there what has failed since
the newest checkpoint (openrlhf_mtp/cluster/attempts.py), and the backend only has to repeat it. */}}

{{/* "true" where the script counts, or nothing. Without retries there is nothing to count. */}}
{{- define "mtp.countsAttempts" -}}
{{- if and (include "mtp.shared" (dict "root" . "name" "checkpoints")) (gt (int .Values.job.retries) 0) -}}true{{- end -}}
{{- end -}}

{{/* Attempts that the backend makes in all. */}}
{{- define "mtp.attempts" -}}
{{- if include "mtp.countsAttempts" . -}}{{- int .Values.job.maxAttempts -}}{{- else -}}{{- add1 (int .Values.job.retries) -}}{{- end -}}
{{- end -}}

{{/* The script's arguments for it. KubeRay repeats whatever has failed, so that a hopeless run stops its own Ray job. */}}
{{- define "mtp.attemptWords" -}}
--run "$RUN" --name "$ME"{{ if include "mtp.countsAttempts" . }} --retries {{ int .Values.job.retries }}{{ end }}
{{- with get (include "mtp.settings" . | fromJson) "ckpt.path" }} --checkpoints {{ include "mtp.shellWord" (toString .) }}{{ end }}
{{- if eq .Values.backend "rayjob" }} --stop-job http://127.0.0.1:8265{{ end }}
{{- end -}}

{{- define "mtp.checkAttempts" -}}
{{- $problems := list -}}
{{- $job := .Values.job -}}
{{- if and (include "mtp.countsAttempts" .) (le (int $job.maxAttempts) (int $job.retries)) -}}
{{- $problems = append $problems (printf "job.maxAttempts: got %d, expected more than job.retries, %d: the first attempt and as many more; raise it, or lower job.retries" (int $job.maxAttempts) (int $job.retries)) -}}
{{- end -}}
{{- $problems | toJson -}}
{{- end -}}
