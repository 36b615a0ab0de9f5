{{/* What cannot be right in `pods`, `head`, `trainer`, `rollout` and `tools`. */}}

{{- define "mtp.checkPods" -}}
{{- $problems := list -}}
{{- range $section := list "pods" "head" "trainer" "rollout" "tools" -}}
{{- $context := dict "root" $ "section" $section "given" (index $.Values $section) -}}
{{- range $check := list "mtp.checkTwice" "mtp.checkContainers" "mtp.checkResources" "mtp.checkOwnVolumes" "mtp.checkVariables" -}}
{{- $problems = concat $problems (include $check $context | fromJsonArray) -}}
{{- end -}}
{{- end -}}
{{- range $section := list "head" "trainer" "rollout" -}}
{{- $group := include "mtp.podSettings" (dict "root" $ "over" (list $section)) | fromJson -}}
{{- $problems = concat $problems (include "mtp.checkNames" (dict "root" $ "section" $section "group" $group) | fromJsonArray) -}}
{{- end -}}
{{- $problems | uniq | toJson -}}
{{- end -}}

{{/* Entries of a list that are one and the same. Arguments of this and the next: root, section, given. */}}
{{- define "mtp.checkTwice" -}}
{{- $problems := list -}}
{{- range $list, $key := include "mtp.entryKeys" . | fromYaml -}}
{{- $seen := dict -}}
{{- range index $.given $list -}}
{{- if ne $key "*" -}}
{{- $name := toString (index . $key) | trimSuffix "/" -}}
{{- if hasKey $seen $name -}}
{{- $problems = append $problems (printf "%s.%s: got two entries with the %s %s, expected one; leave the other out" $.section $list $key $name) -}}
{{- end -}}
{{- $_ := set $seen $name true -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $problems | toJson -}}
{{- end -}}

{{- define "mtp.checkContainers" -}}
{{- $problems := list -}}
{{- $own := list "ray" "wait-gcs-ready" "wait-for-tls-ip-san" "autoscaler" -}}
{{- range $list := list "initContainers" "extraContainers" -}}
{{- range index $.given $list -}}
{{- if has .name $own -}}
{{- $problems = append $problems (printf "%s.%s: got the name %s, which is a container of the chart's or of KubeRay's; choose another" $.section $list .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range .given.startCommands -}}
{{- if contains "ray start" . -}}
{{- $problems = append $problems (printf "%s.startCommands: got %s, expected no `ray start`: whoever starts the pods adds it, and KubeRay adds nothing where it finds one; leave it out" $.section .) -}}
{{- end -}}
{{- end -}}
{{- $problems | toJson -}}
{{- end -}}

{{- define "mtp.checkResources" -}}
{{- $problems := list -}}
{{- $v := .root.Values -}}
{{- $own := dict "cpu" (printf "%s.cpu" .section) "memory" (printf "%s.memory" .section) "ephemeral-storage" (printf "%s.ephemeralStorage" .section) -}}
{{- if $v.network.rdma.enabled -}}{{- $_ := set $own $v.network.rdma.resource "network.rdma.count" -}}{{- end -}}
{{- if ne $v.accelerator.type "cpu" -}}{{- $_ := set $own $v.accelerator.resource "trainer.gpus and rollout.gpus" -}}{{- end -}}
{{- range $name, $amount := .given.extraResources -}}
{{- if hasKey $own $name -}}
{{- $problems = append $problems (printf "%s.extraResources: got %s, which the chart asks for itself; set %s" $.section $name (get $own $name)) -}}
{{- end -}}
{{- end -}}
{{- $problems | toJson -}}
{{- end -}}

{{- define "mtp.checkOwnVolumes" -}}
{{- $problems := list -}}
{{- range .given.extraVolumes -}}
{{- if has .name (list "job" "files") -}}
{{- $problems = append $problems (printf "%s.extraVolumes: got the name %s, under which the run finds its own files; choose another" $.section .name) -}}
{{- end -}}
{{- end -}}
{{- $problems | toJson -}}
{{- end -}}

{{- define "mtp.checkVariables" -}}
{{- $problems := list -}}
{{- range .given.extraEnv -}}
{{- if and .value .valueFrom -}}
{{- $problems = append $problems (printf "%s.extraEnv: %s has a value and a valueFrom, expected one of them" $.section .name) -}}
{{- end -}}
{{- end -}}
{{- $problems | toJson -}}
{{- end -}}

{{/* What one part of a group's pod calls another by. Arguments: root, section, group (its settings, merged). */}}
{{- define "mtp.checkNames" -}}
{{- $problems := list -}}
{{- $volumes := list "shm" "scratch" "job" "checkpoints" "model-cache" "data" -}}
{{- if .root.Values.job.files -}}{{- $volumes = append $volumes "files" -}}{{- end -}}
{{- range .group.extraVolumes -}}{{- $volumes = append $volumes .name -}}{{- end -}}
{{- range .group.extraVolumeMounts -}}
{{- if not (has .name $volumes) -}}
{{- $problems = append $problems (printf "%s.extraVolumeMounts: got %s at %s, expected a volume of the pod: %s; add it to extraVolumes" $.section .name .mountPath ($volumes | uniq | join ", ")) -}}
{{- end -}}
{{- end -}}
{{- $claims := list -}}
{{- range .group.resourceClaims -}}{{- $claims = append $claims .name -}}{{- end -}}
{{- range .group.containerClaims -}}
{{- if not (has .name $claims) -}}
{{- $problems = append $problems (printf "%s.containerClaims: got %s, expected one of the pod's resourceClaims (%s); add it there" $.section .name ($claims | join ", " | default "none")) -}}
{{- end -}}
{{- end -}}
{{- $containers := list -}}
{{- range concat .group.initContainers .group.extraContainers -}}
{{- if has .name $containers -}}
{{- $problems = append $problems (printf "%s.extraContainers: got %s, which is one of its initContainers already; choose another name" $.section .name) -}}
{{- end -}}
{{- $containers = append $containers .name -}}
{{- end -}}
{{- $problems | toJson -}}
{{- end -}}
