{{/* NCCL's and RDMA's settings. */}}

{{- define "mtp.checkNetwork" -}}
{{- $problems := list -}}
{{- $n := .Values.network -}}
{{- if and $n.nccl.hca (not $n.rdma.enabled) -}}
{{- $problems = append $problems (printf "network.nccl.hca: got %s without RDMA devices in the pods, and NCCL would hang on half an InfiniBand; set network.rdma.enabled=true or leave it out" $n.nccl.hca) -}}
{{- end -}}
{{- if and (not (kindIs "invalid" $n.nccl.gidIndex)) (not $n.rdma.enabled) -}}
{{- $problems = append $problems (printf "network.nccl.gidIndex: got %v, which NCCL reads with RDMA only; set network.rdma.enabled=true or leave it out" $n.nccl.gidIndex) -}}
{{- end -}}
{{- if and $n.rdma.enabled (eq .Values.accelerator.type "cpu") -}}
{{- $problems = append $problems "network.rdma.enabled: got true with accelerator.type=cpu; RDMA is for GPU pods" -}}
{{- end -}}
{{- if and $n.rdma.enabled (not $n.rdma.resource) -}}
{{- $problems = append $problems "network.rdma.resource: got nothing, expected the resource that the RDMA device plug-in offers, for example rdma/hca" -}}
{{- end -}}
{{- if and $n.rdma.enabled $n.rdma.resource (eq $n.rdma.resource .Values.accelerator.resource) -}}
{{- $problems = append $problems (printf "network.rdma.resource: got %s, which is accelerator.resource; give the resource that the RDMA device plug-in offers, for example rdma/hca" $n.rdma.resource) -}}
{{- end -}}
{{- if not (hasPrefix "^" $n.nccl.socketInterface) -}}
{{- range $name := splitList "," (trimPrefix "=" $n.nccl.socketInterface) -}}
{{- if regexMatch "^(eth|en|ens|eno|enp|enx|ib|ibp|ibs|bond|team|net|br|rdma|roce|wlan)$" $name -}}
{{- $problems = append $problems (printf "network.nccl.socketInterface: got %s, which NCCL reads as the beginning of a name and gloo as a whole one; give whole names, for example %s0" $n.nccl.socketInterface $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $problems | toJson -}}
{{- end -}}
