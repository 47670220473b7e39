package admin

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"defender-proxy/internal/approval"
)

var (
	auditRecords = prometheus.NewDesc("defender_proxy_audit_records_total",
		"Audit records, by outcome: stored, or lost because they could not be.", []string{"outcome"}, nil)
	auditFailing = prometheus.NewDesc("defender_proxy_audit_failing",
		"1 while audit records cannot be stored, and writes are refused where audit.writes is required; else 0.", nil, nil)
	auditSyncs = prometheus.NewDesc("defender_proxy_audit_syncs_total",
		"Calls of fsync for audit records.", nil, nil)
	auditAside = prometheus.NewDesc("defender_proxy_audit_files_put_aside_total",
		"Audit files that were put aside because of their size.", nil, nil)
	placeRecords = prometheus.NewDesc("defender_proxy_audit_place_records_total",
		"Audit records for a place beside the file, by outcome: sent, or dropped.", []string{"place", "outcome"}, nil)
	placeWaiting = prometheus.NewDesc("defender_proxy_audit_place_waiting",
		"Audit records that wait to be sent to a place.", []string{"place"}, nil)
	placeFailing = prometheus.NewDesc("defender_proxy_audit_place_failing",
		"1 while the newest attempt to reach a place has failed; else 0.", []string{"place"}, nil)
	approvalsOpen = prometheus.NewDesc("defender_proxy_approvals",
		"Calls that wait for a second person: pending, or approved and not repeated yet.", []string{"state"}, nil)
)

var auditDescs = []*prometheus.Desc{auditRecords, auditFailing, auditSyncs, auditAside, placeRecords, placeWaiting, placeFailing, approvalsOpen}

// collectAudit reports what the audit knows of itself, and how many calls wait.
func (s state) collectAudit(ch chan<- prometheus.Metric) {
	value := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, kind, v, labels...)
	}
	failing := func(d *prometheus.Desc, why string, labels ...string) {
		v := 0.0
		if why != "" {
			v = 1
		}
		value(d, prometheus.GaugeValue, v, labels...)
	}
	if s.sources.Audit != nil {
		st := s.sources.Audit.Stats()
		value(auditRecords, prometheus.CounterValue, float64(st.Stored), "stored")
		value(auditRecords, prometheus.CounterValue, float64(st.Lost), "lost")
		failing(auditFailing, st.Failing)
		value(auditSyncs, prometheus.CounterValue, float64(st.Syncs))
		value(auditAside, prometheus.CounterValue, float64(st.PutAside))
		for _, p := range st.Places {
			value(placeRecords, prometheus.CounterValue, float64(p.Sent), p.Name, "sent")
			value(placeRecords, prometheus.CounterValue, float64(p.Dropped), p.Name, "dropped")
			value(placeWaiting, prometheus.GaugeValue, float64(p.Waiting), p.Name)
			failing(placeFailing, p.Failing, p.Name)
		}
	}
	if s.sources.Approvals != nil {
		open := map[approval.State]float64{approval.Pending: 0, approval.Approved: 0}
		for _, a := range s.sources.Approvals.List(time.Now()) {
			if _, counts := open[a.State]; counts {
				open[a.State]++
			}
		}
		for kind, n := range open {
			value(approvalsOpen, prometheus.GaugeValue, n, string(kind))
		}
	}
}
