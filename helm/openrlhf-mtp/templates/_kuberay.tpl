{{/* What the chart can know of KubeRay before its operator has made a pod: the kinds that the cluster knows. */}}

{{/* "true" where the cluster knows a kind. Arguments: root, kind (with its group and version). */}}
{{- define "mtp.knows" -}}
{{- if .root.Capabilities.APIVersions.Has .kind -}}true{{- end -}}
{{- end -}}

{{/* A warning where the kinds are those of KubeRay 1.5, which had no RayCronJob. A release whose RayJob cannot be looked at
(`helm template` knows no cluster) has none; the preflight asks the operator itself. */}}
{{- define "mtp.oldKubeRay" -}}
{{- if and (eq .Values.backend "rayjob") (include "mtp.knows" (dict "root" . "kind" "ray.io/v1/RayJob")) (not (include "mtp.knows" (dict "root" . "kind" "ray.io/v1/RayCronJob"))) -}}
the cluster's kinds of ray.io are those of KubeRay 1.5 or older (there is no RayCronJob), and the chart needs 1.6: what they do not know is dropped from the RayJob, job.startupDeadlineSeconds for one. Bring the CRDs up to the operator's version; `helm upgrade` of the operator leaves them as they are.
{{- end -}}
{{- end -}}
