{{/* Where compiled kernels lie that outlive a pod. */}}

{{/* The folder of all of them as a pod sees it, empty where each pod compiles for itself. A volume that is mounted read-only
holds none. */}}
{{- define "mtp.cacheMount" -}}
{{- $cache := include "mtp.storageOf" (dict "root" . "name" "compileCache") | fromJson -}}
{{- $models := include "mtp.storageOf" (dict "root" . "name" "modelCache") | fromJson -}}
{{- $own := include "mtp.shared" (dict "root" . "name" "compileCache") -}}
{{- $beside := include "mtp.shared" (dict "root" . "name" "modelCache") -}}
{{- range $source := $models.volume -}}
{{- if kindIs "map" $source -}}{{- if $source.readOnly -}}{{- $beside = "" -}}{{- end -}}{{- end -}}
{{- end -}}
{{- if not $cache.enabled -}}
{{- else if $own -}}{{ trimSuffix "/" $cache.mountPath }}
{{- else if $beside -}}{{ trimSuffix "/" $models.mountPath }}/compile-cache
{{- end -}}
{{- end -}}

{{/* One image's folder there: what another version, build or kind of accelerator compiled is never looked at. */}}
{{- define "mtp.cacheFolder" -}}
{{- $mount := include "mtp.cacheMount" . -}}
{{- if $mount -}}
{{- $node := ternary "/$(NODE_NAME)" "" .Values.storage.compileCache.perNode -}}
{{- $mount }}/{{ .Chart.Version }}-{{ .Values.accelerator.type }}-{{ include "mtp.image" . | sha256sum | trunc 8 }}{{ $node }}
{{- end -}}
{{- end -}}

{{/* The variables. torch's own extensions stay with the pod: one that is killed while it compiles leaves a lock behind, on
which every later process waits for ever. Argument: root. */}}
{{- define "mtp.cacheEnv" -}}
{{- $folder := include "mtp.cacheFolder" . -}}
{{- if $folder }}
- name: NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
- name: OPENRLHF_MTP_COMPILE_CACHE
  value: {{ $folder | quote }}
{{- range $name, $below := dict "VLLM_CACHE_ROOT" "vllm" "TORCHINDUCTOR_CACHE_DIR" "inductor" "TRITON_CACHE_DIR" "triton" "FLASHINFER_WORKSPACE_BASE" "flashinfer" }}
- name: {{ $name }}
  value: {{ printf "%s/%s" $folder $below | quote }}
{{- end }}
- name: TORCH_EXTENSIONS_DIR
  value: /tmp/torch-extensions
{{- end }}
{{- end -}}

{{/* A line of the shell before Ray starts: the variables are taken back where the folder cannot be used. */}}
{{- define "mtp.checkCache" -}}
{{- if include "mtp.cacheFolder" . -}}
. <(python -m openrlhf_mtp.cluster.caches)
{{- end -}}
{{- end -}}

{{/* Problems of storage.compileCache, as JSON. */}}
{{- define "mtp.checkCaches" -}}
{{- $problems := list -}}
{{- $given := include "mtp.shared" (dict "root" . "name" "compileCache") -}}
{{- if and $given (not .Values.storage.compileCache.enabled) -}}
{{- $problems = append $problems "storage.compileCache: got a volume, and enabled=false; set enabled=true, or leave the volume out" -}}
{{- end -}}
{{- $problems | toJson -}}
{{- end -}}
