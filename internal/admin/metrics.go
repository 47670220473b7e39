package admin

import (
	"math"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"defender-proxy/internal/audit"
)

// Metrics counts what the proxy did. Its labels are bounded: operations by the
// catalog, tenants, services and regions by the configuration, refusals by the
// proxy's codes, HTTP codes by statusLabel. No label holds what a caller chose.
type Metrics struct {
	registry *prometheus.Registry

	requests  *prometheus.CounterVec
	refusals  *prometheus.CounterVec
	duration  *prometheus.HistogramVec
	firstByte *prometheus.HistogramVec
	attempts  *prometheus.CounterVec
	bytes     *prometheus.CounterVec
	configOK  prometheus.Gauge
	configAt  prometheus.Gauge
}

// durations are the buckets of times in seconds: from a cached answer to the
// longest hunting query that is documented.
var durations = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 240}

// NewMetrics makes Metrics with a registry of their own. version is what the
// build info says.
func NewMetrics(version string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "defender_proxy_requests_total",
			Help: "Requests by operation and HTTP code, refusals too; operation relay: downloads of files.",
		}, []string{"operation", "code"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "defender_proxy_refusals_total",
			Help: "Requests that ended without Microsoft's answer or within it, by code: the proxy's refusals, ClientGone for callers that left, InvalidAnswer for answers that broke off.",
		}, []string{"reason"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "defender_proxy_request_duration_seconds",
			Help:    "Time from the first byte of a request to the last of its answer, by class of operation; relay: downloads of files.",
			Buckets: durations,
		}, []string{"class"}),
		firstByte: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "defender_proxy_first_byte_seconds",
			Help:    "Time from the first byte of a request to the beginning of Microsoft's answer, by region.",
			Buckets: durations,
		}, []string{"region"}),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "defender_proxy_attempts_total",
			Help: "Requests sent to Microsoft or tried to be, by region.",
		}, []string{"region"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "defender_proxy_bytes_total",
			Help: "Bytes of bodies, by direction: in from callers, out to them.",
		}, []string{"direction"}),
	}
	// Named as Prometheus names its own.
	m.configOK = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "defender_proxy_config_last_reload_successful",
		Help: "1 when the last attempt to read the configuration was successful, else 0.",
	})
	m.configAt = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "defender_proxy_config_last_reload_success_timestamp_seconds",
		Help: "Unix time of the last time that the configuration was read successfully.",
	})
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "defender_proxy_build_info",
		Help:        "Always 1.",
		ConstLabels: prometheus.Labels{"version": version},
	})
	info.Set(1)
	m.registry.MustRegister(m.requests, m.refusals, m.duration, m.firstByte, m.attempts, m.bytes, m.configOK, m.configAt, info,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// ConfigRead notes an attempt to read the configuration and put it into force.
func (m *Metrics) ConfigRead(ok bool, now time.Time) {
	if !ok {
		m.configOK.Set(0)
		return
	}
	m.configOK.Set(1)
	m.configAt.Set(float64(now.UnixMilli()) / 1000)
}

// Observe counts one request by its record.
func (m *Metrics) Observe(r *audit.Record) {
	operation, class := r.Operation, r.Class
	switch {
	case r.File != "":
		operation, class = relay, relay
	case operation == "":
		operation, class = "none", "none"
	}
	m.requests.WithLabelValues(operation, statusLabel(r.Status)).Inc()
	m.duration.WithLabelValues(class).Observe(r.Duration.Seconds())
	if r.Code != "" {
		m.refusals.WithLabelValues(r.Code).Inc()
	}
	if r.Region != "" {
		for _, region := range r.Tried {
			m.attempts.WithLabelValues(region).Inc()
		}
		if r.FirstByte > 0 {
			m.firstByte.WithLabelValues(r.Region).Observe(r.FirstByte.Seconds())
		}
	}
	m.bytes.WithLabelValues("in").Add(float64(r.BytesIn))
	m.bytes.WithLabelValues("out").Add(float64(r.BytesOut))
}

// relay is the operation and class of downloads that are relayed. They are counted
// apart from the call that gave the link, because they take as long as a file is large.
const relay = "relay"

// statusLabel bounds the codes that upstream can make up.
func statusLabel(status int) string {
	if status < 100 || status > 599 {
		return "other"
	}
	return strconv.Itoa(status)
}

// state reports on scrape what tenants, tokens and regions are like right now. A
// tenant that was taken out of the configuration has no series any more.
type state struct{ sources Sources }

var (
	tokenExpires = prometheus.NewDesc("defender_proxy_token_expires_in_seconds",
		"Time that the token of a tenant has left; 0 when there is none.", []string{"tenant", "service"}, nil)
	tokenAge = prometheus.NewDesc("defender_proxy_token_age_seconds",
		"Time since the token of a tenant came; NaN when there is none.", []string{"tenant", "service"}, nil)
	tokenFetches = prometheus.NewDesc("defender_proxy_token_fetches_total",
		"Questions for a token, by outcome.", []string{"tenant", "service", "outcome"}, nil)
	tenantReady = prometheus.NewDesc("defender_proxy_tenant_ready",
		"1 while requests for a tenant can be answered, by what /-/ready goes by; else 0.", []string{"tenant"}, nil)
	credentialExpires = prometheus.NewDesc("defender_proxy_credential_expires_in_seconds",
		"Time until a tenant's credential ends by its own date, below 0 once it has; not there for one without a date.", []string{"tenant"}, nil)
	regionLatency = prometheus.NewDesc("defender_proxy_region_latency_seconds",
		"Smoothed time of a probe on a warm connection; NaN before the first.", []string{"service", "region", "host"}, nil)
	regionSurplus = prometheus.NewDesc("defender_proxy_region_surplus_seconds",
		"By how much real requests exceed what is usual for their operations, 0 before the first. Regions are compared by the sum of this and the latency.", []string{"service", "region", "host"}, nil)
	regionUp = prometheus.NewDesc("defender_proxy_region_up",
		"1 while a region is in use, 0 while it is out after failures.", []string{"service", "region", "host"}, nil)
	regionChosen = prometheus.NewDesc("defender_proxy_region_chosen",
		"How many pools go to a region first. A pool is what tenants with the same regions, allowed and preferred, share of a service.", []string{"service", "region", "host"}, nil)
)

func (s state) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{tokenExpires, tokenAge, tokenFetches, tenantReady, credentialExpires, regionLatency, regionSurplus, regionUp, regionChosen, retiringRequests} {
		ch <- d
	}
	for _, d := range auditDescs {
		ch <- d
	}
}

func (s state) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	s.collectAudit(ch)
	s.collectRetiring(ch)
	now := time.Now()
	for _, t := range s.sources.View().Tenants {
		ready := 0.0
		if t.readiness().Ready {
			ready = 1
		}
		gauge(tenantReady, ready, t.Name)
		for i, a := range t.Access {
			st := a.Token.State()
			if end := st.Credential.Expires; i == 0 && !end.IsZero() {
				gauge(credentialExpires, end.Sub(now).Seconds(), t.Name)
			}
			expires, age := 0.0, math.NaN()
			if st.Live {
				expires, age = st.ExpiresIn.Seconds(), st.Age.Seconds()
			}
			gauge(tokenExpires, expires, t.Name, string(a.Service))
			gauge(tokenAge, age, t.Name, string(a.Service))
			count := func(outcome string, n uint64) {
				ch <- prometheus.MustNewConstMetric(tokenFetches, prometheus.CounterValue, float64(n), t.Name, string(a.Service), outcome)
			}
			count("ok", st.Fetches-st.Failures)
			count("failed", st.Failures)
		}
	}
	for _, st := range s.sources.Monitor.Snapshot() {
		latency, up := math.NaN(), 0.0
		if st.Samples > 0 {
			latency = st.Latency.Seconds()
		}
		if st.Healthy {
			up = 1
		}
		gauge(regionLatency, latency, string(st.Service), string(st.Region), st.Host)
		gauge(regionSurplus, st.Surplus.Seconds(), string(st.Service), string(st.Region), st.Host)
		gauge(regionUp, up, string(st.Service), string(st.Region), st.Host)
		gauge(regionChosen, float64(len(st.Chosen)), string(st.Service), string(st.Region), st.Host)
	}
}
