{{/* Which of Kubernetes' Pod Security levels (privileged, baseline, restricted) takes the run's pods, and what keeps them from
a stricter one. Asked of the pods as they are rendered, so that it holds for whatever the values add to them. */}}

{{/* {level, why: [text]} as JSON. */}}
{{- define "mtp.podSecurity" -}}
{{- $counts := include "mtp.counts" . | fromJson -}}
{{- $beyond := dict "baseline" list "restricted" list -}}
{{- range $role := list "head" "trainer" "rollout" -}}
{{- if or (eq $role "head") (gt (int (get $counts $role | default dict).replicas) 0) -}}
{{- $spec := (include "mtp.podTemplate" (dict "root" $ "role" $role) | fromYaml).spec -}}
{{- include "mtp.podBeyond" (dict "role" $role "spec" $spec "into" $beyond) -}}
{{- range concat $spec.containers ($spec.initContainers | default list) -}}
{{- $context := mergeOverwrite (deepCopy ($spec.securityContext | default dict)) (.securityContext | default dict) -}}
{{- include "mtp.containerBeyond" (dict "where" (printf "%s of %s" .name $role) "context" $context "ports" (.ports | default list) "into" $beyond) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $beyond.baseline -}}
{{- dict "level" "privileged" "why" ($beyond.baseline | uniq) | toJson -}}
{{- else -}}
{{- dict "level" (ternary "baseline" "restricted" (not (empty $beyond.restricted))) "why" ($beyond.restricted | uniq) | toJson -}}
{{- end -}}
{{- end -}}

{{/* What of a pod's spec a level does not take. Arguments: role, spec, into (level to list). */}}
{{- define "mtp.podBeyond" -}}
{{- range $key := list "hostNetwork" "hostPID" "hostIPC" -}}
{{- if get $.spec $key -}}{{- $_ := set $.into "baseline" (append $.into.baseline (printf "%s of %s" $key $.role)) -}}{{- end -}}
{{- end -}}
{{- range $volume := .spec.volumes -}}
{{- range $kind := keys (omit $volume "name") -}}
{{- $level := "" -}}
{{- if eq $kind "hostPath" -}}{{- $level = "baseline" -}}
{{- else if not (has $kind (list "configMap" "csi" "downwardAPI" "emptyDir" "ephemeral" "persistentVolumeClaim" "projected" "secret")) -}}{{- $level = "restricted" -}}
{{- end -}}
{{- if $level -}}{{- $_ := set $.into $level (append (get $.into $level) (printf "the %s volume %s" $kind $volume.name)) -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The same of a container. Arguments: where, context (its own security context over the pod's), ports, into. */}}
{{- define "mtp.containerBeyond" -}}
{{- $context := .context -}}
{{- $capabilities := $context.capabilities | default dict -}}
{{- $added := $capabilities.add | default list -}}
{{- $baseline := list -}}{{- $restricted := list -}}
{{- if $context.privileged -}}{{- $baseline = append $baseline "privileged" -}}{{- end -}}
{{- range without $added "AUDIT_WRITE" "CHOWN" "DAC_OVERRIDE" "FOWNER" "FSETID" "KILL" "MKNOD" "NET_BIND_SERVICE" "SETFCAP" "SETGID" "SETPCAP" "SETUID" "SYS_CHROOT" -}}
{{- $baseline = append $baseline (printf "capability %s" .) -}}
{{- end -}}
{{- range .ports -}}{{- if .hostPort -}}{{- $baseline = append $baseline (printf "hostPort %v" .hostPort) -}}{{- end -}}{{- end -}}
{{- if or (ne (toString $context.runAsNonRoot) "true") (eq (toString $context.runAsUser) "0") -}}{{- $restricted = append $restricted "may run as root" -}}{{- end -}}
{{- if ne (toString $context.allowPrivilegeEscalation) "false" -}}{{- $restricted = append $restricted "allowPrivilegeEscalation" -}}{{- end -}}
{{- if not (has (get ($context.seccompProfile | default dict) "type") (list "RuntimeDefault" "Localhost")) -}}{{- $restricted = append $restricted "no seccompProfile" -}}{{- end -}}
{{- if or (not (has "ALL" ($capabilities.drop | default list))) (without $added "NET_BIND_SERVICE") -}}{{- $restricted = append $restricted "capabilities" -}}{{- end -}}
{{- range $level, $found := dict "baseline" $baseline "restricted" $restricted -}}
{{- with $found -}}{{- $_ := set $.into $level (append (get $.into $level) (printf "%s: %s" $.where (join ", " .))) -}}{{- end -}}
{{- end -}}
{{- end -}}
