// Pins the projects whose definitions the chart's manifests are checked against: Gateway API and Prometheus Operator.
module tenant-operator.dev/cluster/foreign

go 1.26.0

toolchain go1.26.8

require (
	github.com/prometheus-operator/prometheus-operator v0.85.0
	sigs.k8s.io/gateway-api v1.6.3
)
