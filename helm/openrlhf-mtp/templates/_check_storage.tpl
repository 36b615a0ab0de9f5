{{/* Volumes, and where they are mounted. */}}

{{- define "mtp.checkStorage" -}}
{{- $problems := list -}}
{{- range $name := include "mtp.stores" $ | fromJsonArray -}}
{{- $one := include "mtp.storageOf" (dict "root" $ "name" $name) | fromJson -}}
{{- $given := list -}}
{{- if $one.existingClaim -}}{{- $given = append $given "existingClaim" -}}{{- end -}}
{{- if $one.create -}}{{- $given = append $given "create" -}}{{- end -}}
{{- if $one.volume -}}{{- $given = append $given "volume" -}}{{- end -}}
{{- if gt (len $given) 1 -}}
{{- $problems = append $problems (printf "storage.%s: got %s, expected one of them" $name (join " and " $given)) -}}
{{- end -}}
{{- if and $one.create (not $one.accessModes) -}}
{{- $problems = append $problems (printf "storage.%s.accessModes: got none, expected ReadWriteMany, or ReadWriteOnce where all pods are on one node" $name) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.monitoring.tensorboard (not (include "mtp.shared" (dict "root" . "name" "checkpoints"))) -}}
{{- $problems = append $problems "monitoring.tensorboard: it reads the run folders and storage.checkpoints names no volume; give storage.checkpoints.existingClaim, create or volume" -}}
{{- end -}}
{{- $problems | toJson -}}
{{- end -}}

{{/* Where storage is mounted: each in a place of its own, none within another. */}}
{{- define "mtp.checkPaths" -}}
{{- $problems := list -}}
{{- $before := dict -}}
{{- range $name := include "mtp.stores" $ | fromJsonArray -}}
{{- $path := get (get $.Values.storage $name) "mountPath" | trimSuffix "/" -}}
{{- range $other, $taken := $before -}}
{{- if eq $path $taken -}}
{{- $problems = append $problems (printf "storage.%s.mountPath: got %s, which storage.%s has already" $name $path $other) -}}
{{- else if or (hasPrefix (printf "%s/" $taken) $path) (hasPrefix (printf "%s/" $path) $taken) -}}
{{- $problems = append $problems (printf "storage.%s.mountPath: got %s, and storage.%s is at %s: one volume within another; choose a path beside it" $name $path $other $taken) -}}
{{- end -}}
{{- end -}}
{{- with include "mtp.hides" (dict "path" $path "file" false) -}}
{{- $problems = append $problems (printf "storage.%s.mountPath: got %s, which would hide %s; choose another" $name $path .) -}}
{{- end -}}
{{- $_ := set $before $name $path -}}
{{- end -}}
{{- $problems | toJson -}}
{{- end -}}

{{/* What a mount at a path would hide of the image or the chart, in words, or nothing. Arguments: path (without a slash at its
end), file (a single file or folder is laid there by subPath), own (paths of the chart's that may be replaced). */}}
{{- define "mtp.hides" -}}
{{- $path := .path -}}{{- $own := .own | default list -}}
{{- $hidden := "" -}}
{{- $parts := dict "/bin" "the system" "/sbin" "the system" "/lib" "the system" "/lib64" "the system" "/usr/bin" "the system" "/usr/sbin" "the system" "/usr/lib" "the system" "/usr/local/bin" "the image's commands" "/usr/local/cuda" "the CUDA toolkit" "/opt/venv/bin" "the image's Python" "/opt/venv/lib" "the image's Python" "/etc/ssl" "the system's certificates" "/var/run/secrets/kubernetes.io" "what Kubernetes mounts" "/run/secrets/kubernetes.io" "what Kubernetes mounts" "/dev/null" "the kernel's files" "/dev/shm" "the chart's shared memory" "/tmp" "the chart's scratch space" "/etc/openrlhf-mtp" "the job file" "/workspace/files" "the files of job.files" "/workspace/examples" "the image's examples" "/proc/self" "the kernel's files" "/sys/class" "the kernel's files" -}}
{{- range $part, $what := $parts -}}
{{- if and (not $hidden) (not (has $part $own)) (or (eq $path $part) (hasPrefix (printf "%s/" $path) $part)) -}}{{- $hidden = $what -}}{{- end -}}
{{- end -}}
{{- range $whole, $what := dict "/proc" "the kernel's files" "/sys" "the kernel's files" "/etc/openrlhf-mtp" "the job file" "/workspace/files" "the files of job.files" "/opt/venv" "the image's Python" -}}
{{- if and (not $hidden) (not (has $whole $own)) (hasPrefix (printf "%s/" $whole) $path) (not (and $.file (eq $whole "/opt/venv"))) -}}{{- $hidden = $what -}}{{- end -}}
{{- end -}}
{{- $hidden -}}
{{- end -}}

{{/* A group's own mounts; needs the counts. As JSON. */}}
{{- define "mtp.checkMounts" -}}
{{- $problems := list -}}
{{- range $role := list "head" "trainer" "rollout" -}}
{{- $group := include "mtp.group" (dict "root" $ "role" $role) | fromJson -}}
{{- range $group.extraVolumeMounts -}}
{{- $path := trimSuffix "/" .mountPath -}}
{{- $file := or .subPath .subPathExpr | empty | not -}}
{{- with include "mtp.hides" (dict "path" $path "file" $file "own" (list "/tmp" "/dev/shm")) -}}
{{- $problems = append $problems (printf "%s.extraVolumeMounts: got the mount path %s, which would hide %s; choose another" $role $path .) -}}
{{- end -}}
{{- if and .subPath .subPathExpr -}}
{{- $problems = append $problems (printf "%s.extraVolumeMounts: got subPath and subPathExpr for %s, expected one of them" $role $path) -}}
{{- end -}}
{{- end -}}
{{- $volumes := list -}}
{{- range include "mtp.volumes" (dict "root" $ "group" $group) | fromYamlArray -}}{{- $volumes = append $volumes .name -}}{{- end -}}
{{- range $list := list "initContainers" "extraContainers" -}}
{{- range $container := get $group $list -}}
{{- range $container.volumeMounts -}}
{{- if not (has .name $volumes) -}}
{{- $problems = append $problems (printf "%s.%s: %s: got the volume %s, expected one of %s; add it to extraVolumes" $role $list $container.name .name (join ", " $volumes)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $problems | uniq | toJson -}}
{{- end -}}
