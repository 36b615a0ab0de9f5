{{/* Everything that would fail minutes later, said now: all problems of the values at once. What there is to say about one
topic is in _check_TOPIC.tpl; what is wrong with the job's counts is said by _counts.tpl. */}}
{{- define "mtp.check" -}}
{{- $problems := list -}}
{{- $checks := list "mtp.checkImage" "mtp.checkJob" "mtp.checkRelease" "mtp.checkTexts" "mtp.checkLabels" "mtp.checkAccelerator" -}}
{{- $checks = concat $checks (list "mtp.checkScheduling" "mtp.checkNetwork" "mtp.checkStorage" "mtp.checkPaths" "mtp.checkObjects") -}}
{{- $checks = append $checks "mtp.checkPeers" -}}
{{- $checks = append $checks "mtp.checkQueues" -}}
{{- $checks = append $checks "mtp.checkLogs" -}}
{{- $checks = append $checks "mtp.checkAttempts" -}}
{{- $checks = append $checks "mtp.checkPods" -}}
{{- $checks = append $checks "mtp.checkCaches" -}}
{{- $checks = append $checks "mtp.checkTools" -}}
{{- range $check := $checks -}}{{- $problems = concat $problems (include $check $ | fromJsonArray) -}}{{- end -}}
{{- $problems | toJson -}}
{{- end -}}

{{/* What only shows when pods and GPUs are counted and a group's settings are laid over those of all pods. */}}
{{- define "mtp.checkCounted" -}}
{{- $problems := list -}}
{{- $checks := list "mtp.checkMemory" "mtp.checkDevices" "mtp.checkParts" "mtp.checkMounts" -}}
{{- $checks = append $checks "mtp.checkTogether" -}}
{{- range $check := $checks -}}{{- $problems = concat $problems (include $check $ | fromJsonArray) -}}{{- end -}}
{{- $problems | toJson -}}
{{- end -}}

{{/* Fail with a list of problems, if there is one. */}}
{{- define "mtp.refuse" -}}
{{- with . -}}
{{- fail (printf "\n\nThese values cannot run:\n  - %s\n" (join "\n  - " .)) -}}
{{- end -}}
{{- end -}}
