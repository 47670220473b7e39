// Command filebeat is Filebeat's own command with a single input, httpjson.
//
// It has everything of Filebeat's that stands between a settings file and the
// wire: the reading of the settings, the input, the queue, the outputs, and the
// registry in which a cursor outlives the process. The other inputs and the
// outputs' dashboards are left out, for they would take most of the time that
// building it takes.
package main

import (
	"os"

	"github.com/elastic/beats/v7/filebeat/beater"
	"github.com/elastic/beats/v7/filebeat/cmd"
	v2 "github.com/elastic/beats/v7/filebeat/input/v2"
	"github.com/elastic/beats/v7/libbeat/beat"
	"github.com/elastic/beats/v7/libbeat/logp"
	"github.com/elastic/beats/v7/x-pack/filebeat/input/httpjson"
)

func main() {
	settings := cmd.FilebeatSettings()
	settings.ElasticLicensed = true // httpjson belongs to the edition under Elastic's license
	if err := cmd.Filebeat(inputs, settings).Execute(); err != nil {
		os.Exit(1)
	}
}

func inputs(_ beat.Info, log *logp.Logger, store beater.StateStore) []v2.Plugin {
	return []v2.Plugin{httpjson.Plugin(log, store)}
}
