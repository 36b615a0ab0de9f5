{{/* The pod of a group. Both backends use it; only the line that starts Ray is a backend's own. */}}

{{/* Requests and limits are the same: a pod is neither evicted first nor throttled by others. */}}
{{- define "mtp.resources" -}}
cpu: {{ .group.cpu | toString | quote }}
memory: {{ .group.memory | quote }}
{{- with .group.ephemeralStorage }}
ephemeral-storage: {{ . | quote }}
{{- end }}
{{- if gt (int .group.physicalGpus) 0 }}
{{- with .root.Values.accelerator.resource }}
{{ . }}: {{ $.group.physicalGpus | toString | quote }}
{{- end }}
{{- if .root.Values.network.rdma.enabled }}
{{ .root.Values.network.rdma.resource }}: {{ .root.Values.network.rdma.count | toString | quote }}
{{- end }}
{{- end }}
{{- with .group.extraResources }}
{{ include "mtp.yaml" . }}
{{- end }}
{{- end -}}

{{/* IPC_LOCK only where there is RDMA. */}}
{{- define "mtp.securityContext" -}}
{{- $context := deepCopy .group.securityContext -}}
{{- if and .root.Values.network.rdma.enabled (gt (int .group.physicalGpus) 0) (not $context.privileged) -}}
{{- $capabilities := get $context "capabilities" | default dict -}}
{{- $_ := set $capabilities "add" (append (get $capabilities "add" | default list) "IPC_LOCK" | uniq) -}}
{{- $_ := set $context "capabilities" $capabilities -}}
{{- end -}}
{{- include "mtp.yaml" $context -}}
{{- end -}}

{{- define "mtp.ports" -}}
{{- if eq .group.role "head" -}}
- {name: gcs, containerPort: 6379, protocol: TCP}
- {name: dashboard, containerPort: 8265, protocol: TCP}
{{- if .root.Values.monitoring.exporter }}
- {name: run-metrics, containerPort: 9400, protocol: TCP}
{{- end }}
{{ end -}}
- {name: metrics, containerPort: 8080, protocol: TCP}
- {name: agent, containerPort: 52365, protocol: TCP}
{{- end -}}

{{/* Ray's own health: of the node, and on the head of the control plane too. A pod that waits for the head is not
restarted while the run may still start. */}}
{{- define "mtp.probes" -}}
startupProbe:
  httpGet: {path: /api/healthz, port: 52365}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: {{ div (add 4 (int .root.Values.job.startupDeadlineSeconds)) 5 }}
readinessProbe:
  httpGet: {path: /api/healthz, port: 52365}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
livenessProbe:
  httpGet: {path: /api/healthz, port: 52365}
  periodSeconds: 15
  timeoutSeconds: 10
  failureThreshold: 12
{{- end -}}

{{/* Spread constraints with the selector of this group. */}}
{{- define "mtp.topologySpread" -}}
{{- $selector := dict "matchLabels" (merge (dict "openrlhf-mtp.io/role" .group.role) (include "mtp.runLabels" .root | fromYaml)) -}}
{{- $spread := list -}}
{{- range .group.topologySpread -}}
{{- $spread = append $spread (merge (deepCopy .) (dict "labelSelector" $selector)) -}}
{{- end -}}
{{- include "mtp.yaml" $spread -}}
{{- end -}}

{{/* What pods of a run have in common beside Ray. Arguments: root, group, beforeInstall (the release's service account is not
there yet). */}}
{{- define "mtp.podBasics" -}}
{{- $v := .root.Values -}}
{{- if not (and .beforeInstall $v.serviceAccount.create) }}
serviceAccountName: {{ include "mtp.serviceAccount" .root | quote }}
{{- end }}
enableServiceLinks: false
{{- with $v.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . | quote }}
{{- end }}
{{- end }}
securityContext: {{- include "mtp.yaml" .group.podSecurityContext | nindent 2 }}
{{- with $v.scheduling.schedulerName }}
schedulerName: {{ . | quote }}
{{- end }}
{{- with .group.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .group.nodeSelector }}
nodeSelector: {{- include "mtp.yaml" . | nindent 2 }}
{{- end }}
{{- $tolerations := .group.tolerations }}
{{- $bound := and (eq .group.role "head") (or .group.nodeSelector .group.affinity) (eq $v.accelerator.type "nvidia") }}{{/* perhaps to the GPU nodes */}}
{{- if or (gt (int .group.physicalGpus) 0) $bound }}
{{- range list $v.accelerator.resource "nvidia.com/gpu" | compact | uniq }}{{/* nodes with MIG slices carry the plain taint */}}
{{- $tolerations = append $tolerations (dict "key" . "operator" "Exists" "effect" "NoSchedule") }}
{{- end }}
{{- end }}
{{- with $tolerations | uniq }}
tolerations: {{- include "mtp.yaml" . | nindent 2 }}
{{- end }}
{{- with .group.affinity }}
affinity: {{- include "mtp.yaml" . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Metadata and spec of a group's pods. Arguments: root, role, start (the container's command and arguments as a
dictionary; KubeRay makes its own). */}}
{{- define "mtp.podTemplate" -}}
{{- $root := .root -}}{{- $v := .root.Values -}}
{{- $group := include "mtp.group" . | fromJson -}}
{{- $context := dict "root" $root "group" $group -}}
metadata:
  labels:
    {{- include "mtp.runLabels" $root | nindent 4 }}
    openrlhf-mtp.io/role: {{ .role }}
    {{- with merge (deepCopy $group.labels) $v.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with merge (include "mtp.topologyAnnotations" $context | fromJson) $group.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- include "mtp.podBasics" $context | trim | nindent 2 }}
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: {{ $v.job.gracePeriodSeconds }}
  {{- with $group.runtimeClassName }}
  runtimeClassName: {{ . | quote }}
  {{- end }}
  {{- if $v.network.hostNetwork }}
  hostNetwork: true
  dnsPolicy: ClusterFirstWithHostNet
  {{- end }}
  {{- range $field := list "hostAliases" "dnsConfig" "resourceClaims" }}
  {{- with get $group $field }}
  {{ $field }}: {{- include "mtp.yaml" . | nindent 4 }}
  {{- end }}
  {{- end }}
  {{- with $group.initContainers }}
  initContainers: {{- include "mtp.named" . | trim | nindent 4 }}
  {{- end }}
  {{- if $group.topologySpread }}
  topologySpreadConstraints: {{- include "mtp.topologySpread" $context | nindent 4 }}
  {{- end }}
  containers:
    - name: ray
      image: {{ include "mtp.image" $root | quote }}
      imagePullPolicy: {{ $v.image.pullPolicy }}
      workingDir: /workspace
      {{- .start | default (include "mtp.besideRay" $context | fromYaml) | toYaml | nindent 6 }}
      {{- with $group.envFrom }}
      envFrom: {{- include "mtp.yaml" . | nindent 8 }}
      {{- end }}
      env: {{- include "mtp.env" $context | nindent 8 }}
      ports: {{- include "mtp.ports" $context | nindent 8 }}
      resources:
        limits: {{- include "mtp.resources" $context | nindent 10 }}
        requests: {{- include "mtp.resources" $context | nindent 10 }}
        {{- with $group.containerClaims }}
        claims: {{- include "mtp.yaml" . | nindent 10 }}
        {{- end }}
      securityContext: {{- include "mtp.securityContext" $context | nindent 8 }}
      {{- include "mtp.probes" $context | nindent 6 }}
      {{- if include "mtp.shared" (dict "root" $root "name" "checkpoints") }}
      lifecycle:
        preStop:
          exec:
            command: [python, -m, openrlhf_mtp.cluster.request_checkpoint, {{ include "mtp.runFolder" $root | quote }}, --timeout-s, {{ include "mtp.checkpointWait" $root | quote }}]
      {{- end }}
      volumeMounts: {{- include "mtp.mounts" $context | nindent 8 }}
    {{- with $group.extraContainers }}
    {{- include "mtp.named" . | trim | nindent 4 }}
    {{- end }}
  volumes: {{- include "mtp.volumes" $context | nindent 4 }}
{{- end -}}
