{{/* Storage of the pods. */}}

{{/* One of checkpoints, modelCache, data with all its keys, as JSON. Arguments: root, name. */}}
{{- define "mtp.storageOf" -}}
{{- get .root.Values.storage .name | toJson -}}
{{- end -}}

{{/* Those that pods mount, as JSON: the compile cache only where it has a volume of its own. */}}
{{- define "mtp.stores" -}}
{{- $names := list "checkpoints" "modelCache" "data" -}}
{{- if include "mtp.shared" (dict "root" . "name" "compileCache") -}}{{- $names = append $names "compileCache" -}}{{- end -}}
{{- $names | toJson -}}
{{- end -}}

{{/* "true" when that storage is a volume that outlives a pod. Arguments: root, name. */}}
{{- define "mtp.shared" -}}
{{- $one := include "mtp.storageOf" . | fromJson -}}
{{- if or $one.existingClaim $one.create $one.volume -}}true{{- end -}}
{{- end -}}

{{- define "mtp.claimName" -}}
{{- $one := include "mtp.storageOf" . | fromJson -}}
{{- $one.existingClaim | default (printf "%s-%s" .root.Release.Name (kebabcase .name)) -}}
{{- end -}}

{{/* Arguments: root, name. */}}
{{- define "mtp.volume" -}}
{{- $one := include "mtp.storageOf" . | fromJson -}}
- name: {{ kebabcase .name }}
{{- if or $one.existingClaim $one.create }}
  persistentVolumeClaim:
    claimName: {{ include "mtp.claimName" . | quote }}
{{- else if $one.volume }}
  {{- include "mtp.yaml" $one.volume | nindent 2 }}
{{- else }}
  emptyDir: {}
{{- end }}
{{- end -}}

{{/* Arguments: root, name. */}}
{{- define "mtp.mount" -}}
{{- $one := include "mtp.storageOf" . | fromJson -}}
- name: {{ kebabcase .name }}
  mountPath: {{ $one.mountPath | quote }}
{{- with $one.subPath }}
  subPath: {{ . | quote }}
{{- end }}
{{- end -}}
