{{/* Names and labels. A run's objects carry a hash of all that makes up the run, so that a run never changes under way. */}}

{{/* Hash of what the run computes: the same text means the same run folder, also with other resources. */}}
{{- define "mtp.jobHash" -}}
{{- dict "config" .Values.job.config "overrides" .Values.job.overrides "files" .Values.job.files "prepare" .Values.job.prepare | toJson | sha256sum | trunc 8 -}}
{{- end -}}

{{/* Hash of the pods as well. What can change beside a running job is left out. */}}
{{- define "mtp.hash" -}}
{{- $values := omit .Values "networkPolicy" "monitoring" "pdb" "extraObjects" "serviceAccount" "global" "_chart" -}}
{{- $values = set $values "job" (omit .Values.job "suspend") -}}
{{- $values = set $values "preflight" (omit .Values.preflight "checkJob" "checkPods") -}}
{{- dict "values" $values "exporter" .Values.monitoring.exporter "account" (include "mtp.serviceAccount" .) "chart" .Chart.Version | toJson | sha256sum | trunc 8 -}}
{{- end -}}

{{- define "mtp.run" -}}
{{- printf "%s-%s" .Release.Name (include "mtp.hash" .) -}}
{{- end -}}

{{- define "mtp.runFolderName" -}}
{{- .Values.job.runName | default (printf "%s-%s" .Release.Name (include "mtp.jobHash" .)) -}}
{{- end -}}

{{- define "mtp.runFolder" -}}
{{- printf "%s/%s" (trimSuffix "/" .Values.storage.checkpoints.mountPath) (include "mtp.runFolderName" .) -}}
{{- end -}}

{{- define "mtp.headService" -}}
{{- printf "%s-head" (include "mtp.run" .) -}}
{{- end -}}

{{- define "mtp.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default .Release.Name -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{/* Labels by which a run's pods are selected. */}}
{{- define "mtp.runLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
openrlhf-mtp.io/run: {{ include "mtp.run" . }}
{{- end -}}

{{/* Labels of every object. */}}
{{- define "mtp.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- with .Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "mtp.image" -}}
{{- $tag := .Values.image.tag | default (printf "%s-%s" .Chart.AppVersion (ternary "cpu" "gpu" (eq .Values.accelerator.type "cpu"))) -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository $tag -}}
{{- end -}}
{{- end -}}

{{/* A version from versions.env, by its name. */}}
{{- define "mtp.version" -}}
{{- regexFind (printf "(?m)^%s=.*$" .name) (.root.Files.Get "versions.env") | trimPrefix (printf "%s=" .name) -}}
{{- end -}}

{{- define "mtp.rayVersion" -}}
{{- .Values.rayVersion | default (include "mtp.version" (dict "root" . "name" "RAY_VERSION")) -}}
{{- end -}}

{{/* A word of a shell command, in single quotes. */}}
{{- define "mtp.shellWord" -}}
'{{ . | replace "'" "'\\''" }}'
{{- end -}}
