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
