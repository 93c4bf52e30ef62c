{{- /* The release's name, which need not be said twice. Names of pods and volumes come behind it. */ -}}
{{- define "hookstream.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* What selects the pods: never changed, since a StatefulSet cannot. */ -}}
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

{{- /* What the operator's port is called within the cluster, and besides. */ -}}
{{- define "hookstream.adminHosts" -}}
{{- $pods := printf "%s-pods" (include "hookstream.name" .) -}}
{{- $long := printf "%s.%s.svc" $pods .Release.Namespace -}}
{{- $names := list -}}
{{- range list $pods (printf "%s.%s" $pods .Release.Namespace) $long (printf "%s.cluster.local" $long) -}}
{{- $names = concat $names (list . (printf "*.%s" .)) -}}
{{- end -}}
{{- concat $names .Values.admin.hosts | join "," -}}
{{- end -}}

{{- /* A schema's path as a key of the ConfigMap, which may have no slash. */ -}}
{{- define "hookstream.schemaKey" -}}
schemas.{{ . | replace "/" "." }}
{{- end -}}
