{{- /* The release's name, with the chart's unless it contains that. Short, since pods and volumes append to it. */ -}}
{{- define "hookstream.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* The pods' selector, which never changes, since that of a StatefulSet is immutable. */ -}}
{{- define "hookstream.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "hookstream.labels" -}}
{{ include "hookstream.selector" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | trunc 63 | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | quote }}
{{- end -}}

{{- /* The host names of the operator's port: those within the cluster, and those in the values. */ -}}
{{- define "hookstream.adminHosts" -}}
{{- $pods := printf "%s-pods" (include "hookstream.name" .) -}}
{{- $long := printf "%s.%s.svc" $pods .Release.Namespace -}}
{{- $names := list -}}
{{- range list $pods (printf "%s.%s" $pods .Release.Namespace) $long (printf "%s.cluster.local" $long) -}}
{{- $names = concat $names (list . (printf "*.%s" .)) -}}
{{- end -}}
{{- concat $names .Values.admin.hosts | join "," -}}
{{- end -}}

{{- /* A schema's path as a key of the ConfigMap, which cannot contain a slash. */ -}}
{{- define "hookstream.schemaKey" -}}
schemas.{{ . | replace "/" "." }}
{{- end -}}

{{- /* The action of a probe: (list . path). Probes bring no certificate, so that with client certificates they only
connect. The kubelet checks no name. */ -}}
{{- define "hookstream.probe" -}}
{{- $admin := (index . 0).Values.admin -}}
{{- if $admin.clientCaKey -}}
tcpSocket: { port: admin }
{{- else -}}
httpGet: { path: {{ index . 1 }}, port: admin{{ if $admin.tlsSecret }}, scheme: HTTPS{{ end }} }
{{- end -}}
{{- end -}}

{{- /* Fails if the operator's port has TLS without admin.tlsSecret: probes and ServiceMonitor would still use HTTP. */ -}}
{{- define "hookstream.checkAdminTls" -}}
{{- $table := "" -}}
{{- $found := false -}}
{{- range splitList "\n" .Values.config -}}
{{- $line := nospace . -}}
{{- if regexMatch "^\\[[^\\[\\],]*\\](#.*)?$" $line -}}{{- $table = regexFind "^[^\\]]*" $line | trimPrefix "[" -}}{{- end -}}
{{- $key := ternary $line (printf "%s.%s" $table $line) (eq $table "") -}}
{{- if or (eq $table "admin.tls") (regexMatch "^admin\\.tls[.=]" $key) -}}{{- $found = true -}}{{- end -}}
{{- end -}}
{{- range .Values.env -}}{{- if hasPrefix "HOOKSTREAM_ADMIN__TLS" .name -}}{{- $found = true -}}{{- end -}}{{- end -}}
{{- if and $found (not .Values.admin.tlsSecret) -}}
{{- fail "admin.tlsSecret: set it instead of [admin.tls], so that probes and ServiceMonitor use HTTPS" -}}
{{- end -}}
{{- if and .Values.admin.clientCaKey (not .Values.admin.tlsSecret) -}}
{{- fail "admin.clientCaKey needs admin.tlsSecret" -}}
{{- end -}}
{{- if and .Values.admin.clientCaKey .Values.serviceMonitor.enabled (not .Values.serviceMonitor.tlsConfig) -}}
{{- fail "serviceMonitor.tlsConfig: with admin.clientCaKey, Prometheus needs a client certificate (cert and keySecret)" -}}
{{- end -}}
{{- end -}}
