{{/* What gang schedulers and Kueue read from a run's objects. */}}

{{/* Labels of a RayJob, as each gang scheduler reads them (KubeRay 1.6.2 and 1.7.0, controllers/ray/batchscheduler). KubeRay
hands them on to the RayCluster and the pods. */}}
{{- define "mtp.gangLabels" -}}
{{- $s := .Values.scheduling -}}
{{- if eq $s.gang "kueue" -}}
kueue.x-k8s.io/queue-name: {{ $s.queue | quote }}
{{- with $s.kueuePriorityClass }}
kueue.x-k8s.io/priority-class: {{ . | quote }}
{{- end }}
{{- else if eq $s.gang "volcano" -}}
{{- with $s.queue }}
volcano.sh/queue-name: {{ . | quote }}
{{- end }}
{{- with include "mtp.gangPriority" . }}
ray.io/priority-class-name: {{ . | quote }}
{{- end }}
{{- else if eq $s.gang "yunikorn" -}}
ray.io/gang-scheduling-enabled: "true"
yunikorn.apache.org/app-id: {{ include "mtp.run" . }}
{{- with $s.queue }}
yunikorn.apache.org/queue: {{ . | quote }}
{{- end }}
{{- else if eq $s.gang "kai" -}}
kai.scheduler/queue: {{ $s.queue | quote }}
{{- else if eq $s.gang "kubernetes" -}}
ray.io/gang-scheduling-enabled: "true"
{{- end -}}
{{- end -}}

{{/* Volcano's PodGroup has one priority: the trainer's. The other schedulers read that of the pods. */}}
{{- define "mtp.gangPriority" -}}
{{- (include "mtp.group" (dict "root" . "role" "trainer") | fromJson).priorityClassName -}}
{{- end -}}

{{/* Kueue's annotations of a group's pods, as JSON. Groups without a GPU have none: the head is usually admitted to a flavor
of CPU nodes, which has no topology. Arguments: root, group. */}}
{{- define "mtp.topologyAnnotations" -}}
{{- $topology := .root.Values.scheduling.topology -}}
{{- $annotations := dict -}}
{{- if and $topology.level (ne .group.role "head") -}}
{{- $_ := set $annotations (printf "kueue.x-k8s.io/podset-%s-topology" $topology.mode) $topology.level -}}
{{- if $topology.together -}}{{- $_ := set $annotations "kueue.x-k8s.io/podset-group-name" "gpus" -}}{{- end -}}
{{- end -}}
{{- $annotations | toJson -}}
{{- end -}}

{{/* What becomes the value of a label must be one; what names a label too. */}}
{{- define "mtp.checkQueues" -}}
{{- $problems := list -}}
{{- $s := .Values.scheduling -}}
{{- $texts := dict "scheduling.queue" $s.queue "scheduling.kueuePriorityClass" $s.kueuePriorityClass -}}
{{- if eq $s.gang "volcano" -}}
{{- range $role := list "pods" "trainer" -}}{{- $_ := set $texts (printf "%s.priorityClassName" $role) (get (get $.Values $role) "priorityClassName" | default "") -}}{{- end -}}
{{- end -}}
{{- range $path, $text := $texts -}}
{{- if not (regexMatch "^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$" $text) -}}
{{- $problems = append $problems (printf "%s: got %s, expected up to 63 letters, digits, dashes, dots and underscores, because a label says it; give the name as the cluster has it" $path ($text | quote)) -}}
{{- end -}}
{{- end -}}
{{- if not (regexMatch "^(([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$" $s.topology.level) -}}
{{- $problems = append $problems (printf "scheduling.topology.level: got %s, expected the name of a node label, for example cloud.provider.com/topology-block" ($s.topology.level | quote)) -}}
{{- end -}}
{{- if and $s.topology.together (not $s.topology.level) -}}
{{- $problems = append $problems "scheduling.topology.together: got true and no level; set scheduling.topology.level to the node label that all pods with GPUs share" -}}
{{- end -}}
{{- if and $s.queue (eq $s.gang "kubernetes") -}}
{{- $problems = append $problems (printf "scheduling.queue: got %s, and Kubernetes' own scheduler has no queues; leave it out" $s.queue) -}}
{{- end -}}
{{- $problems | toJson -}}
{{- end -}}

{{/* Kueue places two groups as one only where one of them has one pod (Kueue 0.19, jobframework/tas_validation.go). Needs the
counts; as JSON. */}}
{{- define "mtp.checkTogether" -}}
{{- $problems := list -}}
{{- if .Values.scheduling.topology.together -}}
{{- $counts := include "mtp.counts" . | fromJson -}}
{{- $trainer := int $counts.trainer.replicas -}}{{- $rollout := int $counts.rollout.replicas -}}
{{- if eq $rollout 0 -}}
{{- $problems = append $problems "scheduling.topology.together: got true, and the trainer's pods hold all GPUs; leave it out" -}}
{{- else if gt (min $trainer $rollout) 1 -}}
{{- $problems = append $problems (printf "scheduling.topology.together: got true with %d trainer pods and %d rollout pods, and Kueue places two groups as one only where one of them has one pod; set trainer.gpus or rollout.gpus to make it one, or leave it out" $trainer $rollout) -}}
{{- end -}}
{{- end -}}
{{- $problems | toJson -}}
{{- end -}}

{{/* A warning where the cluster does not know the kinds of the gang's scheduler. Nothing is said without a cluster, as for
KubeRay's kinds. */}}
{{- define "mtp.missingScheduler" -}}
{{- $gang := .Values.scheduling.gang -}}
{{- $kinds := dict "kueue" (list "kueue.x-k8s.io/v1beta1/LocalQueue" "kueue.x-k8s.io/v1beta2/LocalQueue") "volcano" (list "scheduling.volcano.sh/v1beta1/PodGroup") "kubernetes" (list "scheduling.k8s.io/v1alpha2/PodGroup") -}}
{{- $found := not (hasKey $kinds $gang) -}}
{{- range get $kinds $gang | default list -}}{{- if include "mtp.knows" (dict "root" $ "kind" .) -}}{{- $found = true -}}{{- end -}}{{- end -}}
{{- if and (not $found) (include "mtp.knows" (dict "root" . "kind" "ray.io/v1/RayJob")) -}}
scheduling.gang={{ $gang }}: the cluster does not know {{ join " or " (get $kinds $gang) }}, so that nobody reads the run's labels and its pods come one by one. Install it, or set scheduling.gang=none.
{{- end -}}
{{- end -}}
