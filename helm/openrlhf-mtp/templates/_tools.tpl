{{/* A small pod beside the run: the submitter, the check of the job file, the test. Arguments: root, role, container (its
name; default the role), token, command, env, beforeInstall. */}}
{{- define "mtp.toolPod" -}}
{{- $root := .root -}}{{- $v := .root.Values -}}
{{- $pods := include "mtp.podSettings" (dict "root" $root "over" list) | fromJson -}}
{{- $group := mergeOverwrite $pods (dict "role" .role "gpus" 0 "physicalGpus" 0 "cpu" 1 "memory" "4Gi" "ephemeralStorage" "") -}}
{{- $_ := set $group "extraResources" dict -}}
{{- $context := dict "root" $root "group" $group "beforeInstall" .beforeInstall -}}
{{ include "mtp.podBasics" $context | trim }}
automountServiceAccountToken: {{ .token }}
restartPolicy: Never
containers:
  - name: {{ .container | default .role }}
    image: {{ include "mtp.image" $root | quote }}
    imagePullPolicy: {{ $v.image.pullPolicy }}
    workingDir: /workspace
    {{- with .command }}
    command: {{- toYaml . | nindent 6 }}
    {{- end }}
    env:
      - {name: HOME, value: /tmp}
      {{- if not .beforeInstall }}
      {{- with include (ternary "mtp.tokenEnv" "mtp.authEnv" (eq .role "test")) $root | trim }}
      {{- . | nindent 6 }}
      {{- end }}
      {{- end }}
      {{- range .env }}
      - {{- include "mtp.exact" . | nindent 8 }}
      {{- end }}
    resources:
      limits: {{- include "mtp.resources" $context | nindent 8 }}
      requests: {{- include "mtp.resources" $context | nindent 8 }}
    securityContext: {{- include "mtp.securityContext" $context | nindent 6 }}
    volumeMounts:
      - {name: scratch, mountPath: /tmp}
volumes:
  - name: scratch
    emptyDir: {sizeLimit: 2Gi}
{{- end -}}
