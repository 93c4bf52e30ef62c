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

{{- /* A schema's path as a key of the ConfigMap, which may have no slash. */ -}}
{{- define "hookstream.schemaKey" -}}
schemas.{{ . | replace "/" "." }}
{{- end -}}
