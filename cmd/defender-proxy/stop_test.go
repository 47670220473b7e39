package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// drained is a server of syslog that counts what comes.
type drained struct {
	buffer
	net.Listener
	done sync.WaitGroup
}

func newDrained(t *testing.T) *drained {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &drained{Listener: l}
	d.done.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			d.done.Go(func() {
				_, _ = io.Copy(&d.buffer, c)
				_ = c.Close()
			})
		}
	})
	return d
}

func (d *drained) end() {
	_ = d.Listener.Close()
	d.done.Wait()
}

// Callers are in the middle of their bodies when the process has to stop and cuts
// them off: each of them leaves its record, in the copies too.
func TestRequestsThatAreCutOffAtTheEndLeaveTheirRecords(t *testing.T) {
	const callers = 200
	syslog := newDrained(t)
	defer syslog.end()
	l := newLab(t, func(l *lab) {
		l.config["clients"] = []object{{"name": "local", "from": []string{"127.0.0.0/8"}, "allow": []string{"read", "hunt"}}}
		l.config["limits"] = object{"shutdown_timeout": "100ms", "max_in_flight": 1000}
		l.config["audit"] = object{"syslog": "tcp://" + syslog.Addr().String()}
	})
	l.eventually("it is ready", func() bool { code, _ := l.get(l.admin + "/-/ready"); return code == http.StatusOK })
	host := strings.TrimPrefix(l.url, "http://")
	for i := range callers {
		c, err := net.Dial("tcp", host)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		fmt.Fprintf(c, "POST /api/advancedqueries/run HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: 1000\r\nExpect: 100-continue\r\nUser-Agent: cut-%d.\r\n\r\n", host, i)
		line, err := bufio.NewReader(c).ReadString('\n') // once the body is asked for
		if err != nil || !strings.Contains(line, " 100 ") {
			t.Fatalf("caller %d: %q, %v", i, line, err)
		}
		fmt.Fprint(c, `{"Query":"`)
	}
	l.cancel()
	code := <-l.code
	l.code <- code
	syslog.end()
	for where, text := range map[string]string{"standard output": l.stdout.String(), "syslog": syslog.String()} {
		missing := 0
		for i := range callers {
			if n := strings.Count(text, fmt.Sprintf(`"user_agent":"cut-%d."`, i)); n != 1 {
				missing++
			}
		}
		if missing > 0 {
			t.Errorf("%s does not have one record each of %d of %d requests", where, missing, callers)
		}
	}
	if !strings.Contains(l.stderr.String(), "are cut off") {
		t.Errorf("nothing was cut off, which proves nothing:\n%s", l.stderr.String())
	}
}

// pipe is standard output that nobody reads until it is opened.
type pipe struct {
	full sync.Once
	// held is closed when the first line does not get through, and open lets all of them.
	held, open chan struct{}
}

func (p *pipe) Write(b []byte) (int, error) {
	p.full.Do(func() { close(p.held) })
	<-p.open
	return len(b), nil
}

// Nobody reads standard output, where audit records go: the operator's pages answer,
// a reload is done, and the process ends.
func TestAStalledStandardOutputKeepsTheProcessNeitherFromReloadingNorFromStopping(t *testing.T) {
	l := newLab(t, func(l *lab) { l.config["limits"] = object{"shutdown_timeout": "100ms"} })
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	stdout, stderr, ended := &pipe{held: make(chan struct{}), open: make(chan struct{})}, new(buffer), make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"serve", "--config", l.path("proxy.yaml")}, nothing, stdout, stderr)
	}()
	var url, operator string
	l.eventually("it listens", func() bool {
		for line := range strings.Lines(stderr.String()) {
			var entry struct{ Message, Address, For string }
			switch _ = json.Unmarshal([]byte(line), &entry); {
			case entry.Message == "listening" && entry.For == "operator":
				operator = "http://" + entry.Address
			case entry.Message == "listening":
				url = "http://" + entry.Address
			}
		}
		return url != "" && operator != ""
	})
	var callers sync.WaitGroup
	for range 3 {
		callers.Go(func() {
			if r, err := client.Get(url + "/nope"); err == nil {
				_ = r.Body.Close()
			}
		})
	}
	<-stdout.held
	for _, page := range []string{"/-/healthy", "/-/audit", "/metrics"} {
		l.wants(operator+page, http.StatusOK)
	}
	if status, body := fetch(t, http.MethodPost, operator+"/-/reload", ""); status != http.StatusOK {
		t.Errorf("reload: %d %s", status, body)
	}
	stop()
	select {
	case code := <-ended:
		if code != exitOK || !strings.Contains(stderr.String(), "their audit records may be missing") {
			t.Errorf("it exited with %d\n%s", code, stderr.String())
		}
	case <-time.After(patience):
		t.Errorf("it does not end\n%s", stderr.String())
	}
	close(stdout.open) // in a process of its own they would be gone by now
	callers.Wait()
}

func TestNothingIsSaidToBeCutOffWhereNothingIs(t *testing.T) {
	for range 5 {
		l := newLab(t, nil)
		l.wants(l.admin+"/-/healthy", http.StatusOK)
		l.get("/nope")
		l.cancel()
		code := <-l.code
		l.code <- code
		if strings.Contains(l.stderr.String(), "cut off") {
			t.Errorf("the log says\n%s", l.stderr.String())
		}
	}
}
