package ec2_test

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/internal/faultproxy"
)

// pages is a listing of n instances by the thousand, as EC2 writes them, with what a reply has that a farm does not want.
func pages(n int) (list [][]byte) {
	for start := 0; start < n; start += 1000 {
		var b bytes.Buffer
		b.WriteString(`<?xml version="1.0" encoding="UTF-8"?><DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>x</requestId><reservationSet>`)
		for i := start; i < min(start+1000, n); i++ {
			fmt.Fprintf(&b, `<item><reservationId>r-%017x</reservationId><ownerId>123456789012</ownerId><groupSet/><instancesSet><item>
<instanceId>i-%017x</instanceId><imageId>ami-0123456789abcdef0</imageId><instanceState><code>16</code><name>running</name></instanceState>
<privateDnsName>ip-10-0-%d-%d.eu-central-1.compute.internal</privateDnsName><dnsName/><reason/><keyName>deploy</keyName><amiLaunchIndex>0</amiLaunchIndex><productCodes/>
<instanceType>m7g.large</instanceType><launchTime>2026-01-02T03:04:05.000Z</launchTime><placement><availabilityZone>eu-central-1a</availabilityZone><groupName/><tenancy>default</tenancy></placement>
<monitoring><state>disabled</state></monitoring><subnetId>subnet-0123456789abcdef0</subnetId><vpcId>vpc-0123456789abcdef0</vpcId>
<privateIpAddress>10.0.%d.%d</privateIpAddress><sourceDestCheck>true</sourceDestCheck><groupSet><item><groupId>sg-1</groupId><groupName>web</groupName></item></groupSet>
<architecture>arm64</architecture><rootDeviceType>ebs</rootDeviceType><rootDeviceName>/dev/xvda</rootDeviceName>
<blockDeviceMapping><item><deviceName>/dev/xvda</deviceName><ebs><volumeId>vol-%017x</volumeId><status>attached</status><attachTime>2026-01-02T03:04:06.000Z</attachTime><deleteOnTermination>true</deleteOnTermination></ebs></item></blockDeviceMapping>
<virtualizationType>hvm</virtualizationType><clientToken>shop-web-%d</clientToken>
<tagSet><item><key>Name</key><value>web-%d</value></item><item><key>scalr:farm</key><value>shop</value></item><item><key>scalr:role</key><value>web</value></item>
<item><key>scalr:index</key><value>%d</value></item><item><key>scalr:token</key><value>shop-web-%d</value></item><item><key>scalr:request</key><value>Name=abcdef,Image=abcdef</value></item></tagSet>
<hypervisor>xen</hypervisor><ebsOptimized>false</ebsOptimized><metadataOptions><state>applied</state><httpTokens>required</httpTokens></metadataOptions>
</item></instancesSet></item>`, i, i, i/250, i%250, i/250, i%250, i, i, i, i, i)
		}
		b.WriteString("</reservationSet>")
		if start+1000 < n {
			fmt.Fprintf(&b, "<nextToken>%d</nextToken>", len(list)+1)
		}
		b.WriteString("</DescribeInstancesResponse>")
		list = append(list, b.Bytes())
	}
	return list
}

// paged answers with the pages of a listing of n instances, as late as a network would: the SDK closes a request's body as
// soon as the reply begins, and where that is before net/http has seen the body's end, the connection breaks, and the call
// is made again.
func paged(n int) func(faultproxy.Request) faultproxy.Fault {
	all := pages(n)
	return func(r faultproxy.Request) faultproxy.Fault {
		n, _ := strconv.Atoi(r.Form.Get("NextToken"))
		return faultproxy.Fault{Delay: 2 * time.Millisecond, Response: faultproxy.Response{Status: 200, Body: all[n]}}
	}
}

// A listing costs one call for each thousand instances, and nothing for each instance.
func TestCallsOfAListing(t *testing.T) {
	calls := 0
	answer := paged(2500)
	cloud, _ := canned(t, func(r faultproxy.Request) faultproxy.Fault {
		if strings.HasPrefix(r.Header.Get("Amz-Sdk-Request"), "attempt=1;") {
			calls++
		}
		return answer(r)
	})
	list, err := cloud.Instances(t.Context(), map[string]string{"scalr:farm": "shop"})
	require.NoError(t, err)
	require.Len(t, list, 2500)
	require.Equal(t, "web-7", list[7].Name)
	require.Equal(t, map[string]string{"scalr:farm": "shop", "scalr:role": "web", "scalr:index": "7"}, list[7].Tags)
	require.Equal(t, 3, calls)
}

// BenchmarkInstances lists 10,000 instances from a canned server, which is in the figures, too.
func BenchmarkInstances(b *testing.B) {
	const n = 10_000
	cloud, p := canned(b, paged(n))
	b.ReportAllocs()
	lists := 0
	for b.Loop() {
		lists++
		list, err := cloud.Instances(b.Context(), map[string]string{"scalr:farm": "shop"})
		if err != nil || len(list) != n {
			b.Fatal(len(list), err)
		}
	}
	b.ReportMetric(float64(p.Count("", ""))/float64(lists), "calls/op")
	allocs := testing.AllocsPerRun(1, func() { _, _ = cloud.Instances(b.Context(), nil) })
	b.ReportMetric(allocs/n, "allocs/instance")
}
