package ec2_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/internal/faultproxy"
	"github.com/scalr-go/scalr/provider"
)

// What EC2 has announced to take back is told, page by page; what is over or would not end the instance is not.
func TestDoomed(t *testing.T) {
	cloud, p := canned(t, func(r faultproxy.Request) faultproxy.Fault {
		switch r.Operation + r.Form.Get("NextToken") {
		case "DescribeSpotInstanceRequests":
			require.Equal(t, "status-code", r.Form.Get("Filter.1.Name"))
			return xml(`<DescribeSpotInstanceRequestsResponse><spotInstanceRequestSet><item><instanceId>i-1</instanceId>
				<status><code>marked-for-termination</code></status></item></spotInstanceRequestSet><nextToken>2</nextToken></DescribeSpotInstanceRequestsResponse>`)
		case "DescribeSpotInstanceRequests2":
			return xml(`<DescribeSpotInstanceRequestsResponse><spotInstanceRequestSet><item><status><code>marked-for-stop</code></status></item><item>
				<instanceId>i-2</instanceId><status><code>marked-for-stop</code></status></item></spotInstanceRequestSet></DescribeSpotInstanceRequestsResponse>`)
		case "DescribeInstanceStatus":
			return xml(`<DescribeInstanceStatusResponse><instanceStatusSet>
				<item><instanceId>i-3</instanceId><eventsSet><item><code>instance-retirement</code><description>The instance is on degraded hardware</description>
					<notBefore>2026-12-01T10:30:00Z</notBefore></item></eventsSet></item>
				<item><instanceId>i-4</instanceId><eventsSet><item><code>instance-stop</code><description>[Completed] The instance is stopped</description></item></eventsSet></item>
				<item><instanceId>i-5</instanceId><eventsSet><item><code>system-reboot</code><description>Reboot</description></item>
					<item><code>instance-stop</code></item></eventsSet></item>
				</instanceStatusSet></DescribeInstanceStatusResponse>`)
		}
		return faultproxy.AWSError(r.Service, http.StatusBadRequest, "Unexpected", r.Operation)
	})
	doomed, err := cloud.Doomed(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[string]string{"i-1": "spot notice: marked-for-termination", "i-2": "spot notice: marked-for-stop",
		"i-3": "instance-retirement not before 2026-12-01 10:30 UTC", "i-5": "instance-stop"}, doomed)
	require.Equal(t, 3, p.Count("", ""))

	cloud, _ = canned(t, always(http.StatusForbidden, "UnauthorizedOperation", "You are not authorized"))
	_, err = cloud.Doomed(t.Context())
	require.ErrorIs(t, err, provider.ErrAuth)
}
