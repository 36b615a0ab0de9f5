{{/* The small pods beside a run: the check of the job file, the submitter, the test, TensorBoard. */}}

{{/* Their settings as JSON: `tools` laid over what of `pods` is every pod's. What ties a pod to the run's nodes is left out: its
selector but for the platform, which is the image's, and the networks and volumes that only those nodes may have. */}}
{{- define "mtp.tool" -}}
{{- $v := .Values -}}
{{- $pods := pick $v.pods "tolerations" "priorityClassName" "labels" "annotations" "extraEnv" "envFrom" "extraVolumeMounts" "hostAliases" "dnsConfig" "podSecurityContext" "securityContext" -}}
{{- $_ := set $pods "nodeSelector" (pick $v.pods.nodeSelector "kubernetes.io/arch" "kubernetes.io/os") -}}
{{- range $name, $value := $v.pods.annotations -}}
{{- if regexMatch "^(k8s[.]v1[.]cni[.]cncf[.]io|v1[.]multus-cni[.]io|(networking|devices)[.]gke[.]io)/" $name -}}
{{- $_ := set $pods "annotations" (omit $pods.annotations $name) -}}
{{- end -}}
{{- end -}}
{{- $volumes := list -}}
{{- range $v.pods.extraVolumes -}}
{{- if pick . "configMap" "secret" "projected" "downwardAPI" "emptyDir" -}}{{- $volumes = append $volumes . -}}{{- end -}}
{{- end -}}
{{- $_ := set $pods "extraVolumes" $volumes -}}
{{- $values := dict "pods" $pods "tools" (omit $v.tools "image") "_chart" $v._chart -}}
{{- $tool := include "mtp.podSettings" (dict "root" (dict "Values" $values) "over" (list "tools")) | fromJson -}}
{{- $disk := ternary "2Gi" "" (gt (len $v.pods.ephemeralStorage) 0) -}}
{{- range $name, $default := dict "cpu" 1 "memory" "4Gi" "ephemeralStorage" $disk -}}
{{- $_ := set $tool $name (get $tool $name | toString | default $default) -}}
{{- end -}}
{{- merge (dict "role" "tool" "physicalGpus" 0) $tool | toJson -}}
{{- end -}}

{{/* Every reference to a Secret or ConfigMap made optional, at any depth and in place. */}}
{{- define "mtp.optional" -}}
{{- if kindIs "map" . -}}
{{- range $key, $item := . -}}
{{- include "mtp.optional" $item -}}
{{- if and (kindIs "map" $item) (has $key (list "secret" "configMap" "secretRef" "configMapRef" "secretKeyRef" "configMapKeyRef")) -}}
{{- $_ := set $item "optional" true -}}
{{- end -}}
{{- end -}}
{{- else if kindIs "slice" . -}}
{{- range . -}}{{- include "mtp.optional" . -}}{{- end -}}
{{- end -}}
{{- end -}}

{{- define "mtp.toolImage" -}}
{{- $i := .Values.tools.image -}}
{{- if not $i.repository -}}
{{- include "mtp.image" . -}}
{{- else if $i.digest -}}
{{- printf "%s@%s" $i.repository $i.digest -}}
{{- else -}}
{{- printf "%s:%s" $i.repository ($i.tag | default (printf "%s-tools" .Chart.AppVersion)) -}}
{{- end -}}
{{- end -}}

{{/* Labels of an object that makes such pods: Kueue reads its queue there. */}}
{{- define "mtp.toolLabels" -}}
{{- merge (include "mtp.labels" . | fromYaml) (include "mtp.tool" . | fromJson).labels | include "mtp.yaml" -}}
{{- end -}}

{{/* Metadata and spec of such a pod. Arguments: root, role, and as they are needed: name and annotations (of a pod that nothing
else makes), ofRun (it belongs to the run and its network policy), container (its name; default the role), command, env,
token, stays (it is started again), deadline (seconds), ports, probe, mounts, volumes, beforeInstall (the release's service
account is not there yet). */}}
{{- define "mtp.toolTemplate" -}}
{{- $root := .root -}}
{{- $tool := include "mtp.tool" $root | fromJson -}}
{{- if .beforeInstall -}}{{/* what it refers to may be the release's own and not be there yet */}}
{{- include "mtp.optional" (pick $tool "extraEnv" "envFrom" "extraVolumes") -}}
{{- end -}}
{{- $own := dict "app.kubernetes.io/name" $root.Chart.Name "app.kubernetes.io/instance" $root.Release.Name "openrlhf-mtp.io/role" .role -}}
{{- if .ofRun -}}{{- $_ := set $own "openrlhf-mtp.io/run" (include "mtp.run" $root) -}}{{- end -}}
metadata:
  {{- with .name }}
  name: {{ . }}
  {{- end }}
  labels: {{- merge $own $tool.labels $root.Values.labels | include "mtp.yaml" | nindent 4 }}
  {{- with merge (.annotations | default dict) $tool.annotations }}
  annotations: {{- include "mtp.yaml" . | nindent 4 }}
  {{- end }}
spec:
  {{- include "mtp.podBasics" (dict "root" $root "group" $tool "beforeInstall" .beforeInstall) | trim | nindent 2 }}
  automountServiceAccountToken: {{ .token | default false }}
  {{- if not .stays }}
  restartPolicy: Never
  {{- end }}
  {{- with .deadline }}
  activeDeadlineSeconds: {{ . }}
  {{- end }}
  {{- with $tool.runtimeClassName }}
  runtimeClassName: {{ . | quote }}
  {{- end }}
  {{- range $field := list "hostAliases" "dnsConfig" }}
  {{- with get $tool $field }}
  {{ $field }}: {{- include "mtp.yaml" . | nindent 4 }}
  {{- end }}
  {{- end }}
  containers:
    - name: {{ .container | default .role }}
      {{- include "mtp.toolContainer" (merge (dict "tool" $tool) .) | trim | nindent 6 }}
  volumes: {{- include "mtp.addedUp" (dict "below" (include "mtp.toolVolumes" . | fromYamlArray) "above" $tool.extraVolumes "by" "name") | fromJsonArray | include "mtp.named" | trim | nindent 4 }}
{{- end -}}

{{- define "mtp.toolVolumes" -}}
- name: scratch
  emptyDir: {sizeLimit: 2Gi}
{{- with .volumes }}
{{ . }}
{{- end }}
{{- end -}}

{{/* The container without its name. Arguments: those of mtp.toolTemplate, and tool (the settings). */}}
{{- define "mtp.toolContainer" -}}
{{- $v := .root.Values -}}
{{- $context := dict "root" .root "group" .tool -}}
{{- $env := concat (list (dict "name" "HOME" "value" "/tmp")) (.env | default list) -}}
image: {{ include "mtp.toolImage" .root | quote }}
imagePullPolicy: {{ $v.tools.image.pullPolicy | default $v.image.pullPolicy }}
workingDir: /workspace
{{- with .command }}
command: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tool.envFrom }}
envFrom: {{- include "mtp.yaml" . | nindent 2 }}
{{- end }}
env:
  {{- range include "mtp.addedUp" (dict "below" $env "above" .tool.extraEnv "by" "name") | fromJsonArray }}
  - {{- include (ternary "mtp.yaml" "mtp.exact" (hasKey . "valueFrom")) . | nindent 4 }}
  {{- end }}
{{- with .ports }}
ports: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .probe }}
readinessProbe: {{- toYaml . | nindent 2 }}
{{- end }}
resources:
  limits: {{- include "mtp.resources" $context | nindent 4 }}
  requests: {{- include "mtp.resources" $context | nindent 4 }}
securityContext: {{- include "mtp.securityContext" $context | nindent 2 }}
volumeMounts: {{- include "mtp.toolMounts" . | fromJsonArray | include "mtp.named" | trim | nindent 2 }}
{{- end -}}

{{/* Mounts of the pod's own volumes, and of `extraVolumeMounts` those of volumes that it has: the run's are not there. As JSON.
Arguments: those of mtp.toolContainer. */}}
{{- define "mtp.toolMounts" -}}
{{- $there := list -}}
{{- range concat (include "mtp.toolVolumes" . | fromYamlArray) .tool.extraVolumes -}}{{- $there = append $there .name -}}{{- end -}}
{{- $mounts := prepend (.mounts | default "[]" | fromYamlArray) (dict "name" "scratch" "mountPath" "/tmp") -}}
{{- $more := list -}}
{{- range .tool.extraVolumeMounts -}}
{{- if has .name $there -}}{{- $more = append $more . -}}{{- end -}}
{{- end -}}
{{- include "mtp.addedUp" (dict "below" $mounts "above" $more "by" "mountPath") -}}
{{- end -}}
