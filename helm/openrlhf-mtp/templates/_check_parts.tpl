{{/* What users add to pods as Kubernetes has it, where the API server would refuse the pod and not the RayJob; needs the
counts. As JSON. */}}
{{- define "mtp.checkParts" -}}
{{- $problems := list -}}
{{- range $role := list "head" "trainer" "rollout" -}}
{{- $group := include "mtp.group" (dict "root" $ "role" $role) | fromJson -}}
{{- range $list := list "initContainers" "extraContainers" -}}
{{- range get $group $list -}}
{{- if not .image -}}{{- $problems = append $problems (printf "%s.%s: got %s without an image; give its image" $role $list .name) -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- range $group.resourceClaims -}}
{{- if eq (empty .resourceClaimName) (empty .resourceClaimTemplateName) -}}
{{- $problems = append $problems (printf "%s.resourceClaims: %s: expected one of resourceClaimName and resourceClaimTemplateName" $role .name) -}}
{{- end -}}
{{- end -}}
{{- range $at, $source := $group.envFrom -}}
{{- if eq (empty $source.secretRef) (empty $source.configMapRef) -}}
{{- $problems = append $problems (printf "%s.envFrom[%d]: expected one of secretRef and configMapRef" $role $at) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $problems | uniq | toJson -}}
{{- end -}}

{{/* `extraObjects`: each must be an object. The templates in them are the user's. As JSON. */}}
{{- define "mtp.checkObjects" -}}
{{- $problems := list -}}
{{- range $at, $given := .Values.extraObjects -}}
{{- $text := tpl (kindIs "string" $given | ternary $given (toYaml $given)) $ -}}
{{- range regexSplit "(?m)^---(?:[ \t\r]|$)" $text -1 -}}
{{- if regexReplaceAll "(?m)^[ \t]*#.*$" . "" | trim -}}
{{- $object := fromYaml . -}}
{{- $named := and (kindIs "map" $object.metadata) (kindIs "string" $object.kind) (kindIs "string" $object.apiVersion) -}}
{{- if $named -}}{{- $named = and (kindIs "string" $object.metadata.name) $object.metadata.name $object.kind $object.apiVersion -}}{{- end -}}
{{- if not $named -}}
{{- $problems = append $problems (printf "extraObjects[%d]: got %s, expected an object with apiVersion, kind and metadata.name" $at (include "mtp.shown" (trim .))) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $problems | toJson -}}
{{- end -}}
