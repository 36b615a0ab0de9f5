{{/* Who may connect: peers as in a NetworkPolicy. Kubernetes refuses some that look right, which is said here in words. */}}

{{/* One of networkPolicy's lists of peers as JSON. Arguments: root, name. KubeRay's operator is one peer, or
several, or by itself: its Helm chart and its kustomize files name it differently, and give its pods the same component
(KubeRay 1.6.2 and 1.7.0, helm-chart/kuberay-operator/templates/deployment.yaml and ray-operator/config/manager). */}}
{{- define "mtp.peers" -}}
{{- $given := get .root.Values.networkPolicy .name -}}
{{- if and (eq .name "operator") (empty $given) -}}
{{- $given = dict "namespaceSelector" dict "podSelector" (dict "matchLabels" (dict "app.kubernetes.io/component" "kuberay-operator")) -}}
{{- end -}}
{{- ternary (list $given) $given (kindIs "map" $given) | toJson -}}
{{- end -}}

{{/* What is wrong with the peers of the values, as JSON. */}}
{{- define "mtp.checkPeers" -}}
{{- $problems := list -}}
{{- range $name := list "operator" "metricsFrom" "dashboardFrom" "egressTo" -}}
{{- range $at, $peer := include "mtp.peers" (dict "root" $ "name" $name) | fromJsonArray -}}
{{- $place := ternary "" (printf "[%d]" $at) (kindIs "map" (get $.Values.networkPolicy $name)) -}}
{{- with include "mtp.peerProblem" $peer -}}
{{- $problems = append $problems (printf "networkPolicy.%s%s: got %s, expected %s" $name $place (toJson $peer | trunc 200) .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.networkPolicy.egressTo (ne .Values.networkPolicy.egress "dns") -}}
{{- $problems = append $problems "networkPolicy.egressTo: got peers with egress=all, which lets pods connect anywhere; set networkPolicy.egress=dns, or leave them out" -}}
{{- end -}}
{{- $problems | toJson -}}
{{- end -}}

{{/* What is expected of a peer instead, or nothing. Argument: the peer. */}}
{{- define "mtp.peerProblem" -}}
{{- $peer := . -}}
{{- $known := list "ipBlock" "namespaceSelector" "podSelector" -}}
{{- $problems := list -}}
{{- range $key, $value := $peer -}}
{{- if not (has $key $known) -}}
{{- $problems = append $problems (printf "podSelector, namespaceSelector or ipBlock in place of %s" $key) -}}
{{- else if eq $key "ipBlock" -}}
{{- with include "mtp.blockProblem" $value -}}{{- $problems = append $problems . -}}{{- end -}}
{{- else -}}
{{- with include "mtp.selectorProblem" $value -}}{{- $problems = append $problems (printf "%s to be %s" $key .) -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- if not $peer -}}
{{- $problems = append $problems "podSelector, namespaceSelector or ipBlock: Kubernetes refuses a peer without any. Every pod of this namespace is {podSelector: {}}" -}}
{{- else if and (hasKey $peer "ipBlock") (gt (len $peer) 1) -}}
{{- $problems = append $problems "ipBlock or selectors: Kubernetes refuses a peer that has both. Give two peers, or leave one out" -}}
{{- end -}}
{{- join "; " $problems -}}
{{- end -}}

{{- define "mtp.blockProblem" -}}
{{- $v4 := `((25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(25[0-5]|2[0-4]\d|1?\d?\d)/([12]?\d|3[0-2])` -}}
{{- $range := printf `^(%s|[0-9a-fA-F]*:[0-9a-fA-F:.]+/(\d\d?|1[01]\d|12[0-8]))$` $v4 -}}
{{- $right := kindIs "map" . -}}
{{- if $right -}}
{{- $except := .except | default list -}}
{{- $right = and (kindIs "string" .cidr) (kindIs "slice" $except) (not (omit . "cidr" "except")) -}}
{{- if $right -}}
{{- range prepend $except .cidr -}}{{- if not (regexMatch $range (toString .)) -}}{{- $right = false -}}{{- end -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- if not $right -}}
ipBlock to have cidr (and except, a list) with ranges of addresses such as 10.0.0.0/8
{{- end -}}
{{- end -}}

{{- define "mtp.selectorProblem" -}}
{{- $right := kindIs "map" . -}}
{{- if $right -}}
{{- $labels := .matchLabels | default dict -}}
{{- $expressions := .matchExpressions | default list -}}
{{- $right = and (not (omit . "matchLabels" "matchExpressions")) (kindIs "map" $labels) (kindIs "slice" $expressions) -}}
{{- if $right -}}
{{- range $_, $value := $labels -}}{{- if not (kindIs "string" $value) -}}{{- $right = false -}}{{- end -}}{{- end -}}
{{- range $expressions -}}
{{- if not (kindIs "map" .) -}}{{- $right = false -}}
{{- else -}}
{{- $listed := has .operator (list "In" "NotIn") -}}
{{- if not (and .key (or (and $listed .values) (and (has .operator (list "Exists" "DoesNotExist")) (not .values)))) -}}{{- $right = false -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if not $right -}}
a selector with matchLabels (name to text) or matchExpressions (key, operator In, NotIn, Exists or DoesNotExist, values)
{{- end -}}
{{- end -}}
