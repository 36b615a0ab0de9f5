{{/* The job file, how a run is ended, and the release's name. */}}

{{- define "mtp.checkJob" -}}
{{- $problems := include "mtp.jobFileProblems" . | fromJsonArray -}}
{{- $job := .Values.job -}}
{{- if get (include "mtp.settings" . | fromJson) "logger.wandb.key" -}}
{{- $problems = append $problems "job.config, job.overrides: logger.wandb.key is a secret, which must not be in values; name the Secret that holds it in secrets.wandb" -}}
{{- end -}}
{{- if and $job.suspend (ne .Values.backend "rayjob") -}}
{{- $problems = append $problems "job.suspend: only the rayjob backend can hold a run back; set backend=rayjob" -}}
{{- end -}}
{{- if and $job.suspend $job.keepPods -}}
{{- $problems = append $problems "job.suspend: KubeRay suspends only runs whose pods it may delete; set job.keepPods=false" -}}
{{- end -}}
{{- if ge (int64 $job.startupDeadlineSeconds) (int64 $job.deadlineSeconds) -}}
{{- $problems = append $problems (printf "job.startupDeadlineSeconds: got %d, expected less than job.deadlineSeconds, %d" (int64 $job.startupDeadlineSeconds) (int64 $job.deadlineSeconds)) -}}
{{- end -}}
{{- range $path, $text := dict "job.config" (dict "job.yaml" $job.config) "job.files" $job.files -}}
{{- $bytes := 0 -}}
{{- range $name, $one := $text -}}
{{- $bytes = add $bytes (len $name) (len ($one | default "")) -}}
{{- if regexMatch "\\x{FFFD}" ($one | default "") -}}
{{- $problems = append $problems (printf "%s: got bytes that are no UTF-8 text%s; a ConfigMap holds text, and other files belong on a volume" $path (ternary "" (printf " in %s" $name) (eq $path "job.config"))) -}}
{{- end -}}
{{- end -}}
{{- $most := ternary 900000 1000000 (eq $path "job.config") -}}{{/* a ConfigMap holds 1 MiB; run.sh is beside the job file */}}
{{- if gt (int64 $bytes) (int64 $most) -}}
{{- $problems = append $problems (printf "%s: got %d bytes, expected at most %d, because Kubernetes keeps 1 MiB in a ConfigMap; put what is large on a volume" $path (int64 $bytes) $most) -}}
{{- else if and (eq $path "job.config") $.Values.preflight.checkJob (gt (int64 $bytes) 130000) -}}
{{- $problems = append $problems (printf "job.config: got %d bytes, expected at most 130000, because the check gets it in a variable, which Linux limits; shorten it or set preflight.checkJob=false" (int64 $bytes)) -}}
{{- end -}}
{{- end -}}
{{- $problems | toJson -}}
{{- end -}}

{{/* What is wrong with job.config as YAML, as JSON. */}}
{{- define "mtp.jobFileProblems" -}}
{{- $text := .Values.job.config -}}
{{- $problems := list -}}
{{- if not $text -}}
{{- $problems = append $problems (printf "job.config: got nothing, expected the text of a job file; %s" (include "mtp.example" .)) -}}
{{- else -}}
{{- $job := fromYaml $text -}}
{{- $error := "" -}}
{{- if and (hasKey $job "Error") (eq (len $job) 1) -}}{{- $error = toString $job.Error -}}{{- end -}}
{{- if contains "cannot unmarshal" $error -}}
{{- $problems = append $problems "job.config: got a list or a single text, expected sections such as `actor:` and `mtp:`" -}}
{{- else if $error -}}
{{- $problems = append $problems (printf "job.config: not valid YAML: %s" $error) -}}
{{- else if not $job -}}
{{- $problems = append $problems "job.config: got no section, expected a job file with sections such as `actor:` and `mtp:`" -}}
{{- else if include "mtp.severalDocuments" $text -}}
{{- $problems = append $problems "job.config: got more than one YAML document, expected one; take out the lines `---` or `...` between them" -}}
{{- end -}}
{{- end -}}
{{- $problems | toJson -}}
{{- end -}}

{{/* "true" for a text with several YAML documents: `---` after something, or twice; something after `...`. Argument: the text. */}}
{{- define "mtp.severalDocuments" -}}
{{- $parts := regexSplit "(?m)^---(?:[ \t\r]|$)" . -1 -}}
{{- $before := first $parts | trimPrefix "\ufeff" -}}
{{- $before = regexReplaceAll "(?m)^[ \t]*(#.*|%.*)?\r?$" $before "" | trim -}}
{{- if or (gt (len $parts) 2) (and (eq (len $parts) 2) $before) (regexMatch `(?m)^\.\.\.\s*$(\s*#.*$)*\s*[^\s#]` .) -}}true{{- end -}}
{{- end -}}

{{- define "mtp.checkRelease" -}}
{{- $problems := list -}}
{{- $name := .Release.Name -}}
{{- $longest := ternary 38 34 (eq .Values.backend "rayjob") -}}
{{- if gt (len $name) $longest -}}
{{- $problems = append $problems (printf "release name: got %s of %d characters, expected at most %d, because pods carry it with a hash in their names; choose a shorter one" $name (len $name) $longest) -}}
{{- end -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) -}}
{{- $problems = append $problems (printf "release name: got %s, expected lower-case letters, digits and dashes that start with a letter, because KubeRay makes a Service of it; choose another" $name) -}}
{{- end -}}
{{- $problems | toJson -}}
{{- end -}}
