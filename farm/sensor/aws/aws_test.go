package aws_test

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/schemas"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/smithy-go/transport/http/protocol/awsquery"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/farm/scale"
	"github.com/scalr-go/scalr/farm/sensor/aws"
	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/provider"
)

func Example() {
	// A program takes its configuration from package config of the SDK.
	client := cloudwatch.New(cloudwatch.Options{Region: "eu-west-1"})
	requests, err := aws.CloudWatch(client, aws.Metric{Namespace: "AWS/ApplicationELB", Name: "RequestCount", Stat: "Sum",
		Dimensions: map[string]string{"LoadBalancer": "app/www/50dc6c495c0c9188"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	config := farm.Config{Sensors: map[string]farm.Sensor{"requests": requests}, MetricAge: 5 * time.Minute}
	fmt.Println(len(config.Sensors))
	// Output: 1
}

// others are calls that are not made.
type others struct{ provider.Balancers }

// listed is a cloud that has balancers.
type listed struct {
	provider.Provider
	others
	list  []provider.Balancer
	calls int
	tags  map[string]string
}

func (l *listed) Balancers(_ context.Context, tags map[string]string) ([]provider.Balancer, error) {
	l.calls++
	l.tags = tags
	return l.list, nil
}

// counter counts calls.
type counter struct {
	*cloudwatch.Client
	calls int
}

func (c *counter) GetMetricData(ctx context.Context, in *cloudwatch.GetMetricDataInput, o ...func(*cloudwatch.Options)) (*cloudwatch.GetMetricDataOutput, error) {
	c.calls++
	return c.Client.GetMetricData(ctx, in, o...)
}

func TestAgainstMoto(t *testing.T) {
	moto := testenv.Moto(t, testenv.MotoOptions{})
	caller := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(caller.CloseIdleConnections)
	cfg := sdk.Config{Region: "us-east-1", BaseEndpoint: sdk.String("http://" + moto.Addr), HTTPClient: caller,
		Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "secret", "")}
	ctx := t.Context()

	t.Run("CloudWatch", func(t *testing.T) {
		client := cloudwatch.NewFromConfig(cfg, func(o *cloudwatch.Options) {
			o.Protocol = awsquery.New(schemas.GraniteServiceVersion20100801) // moto does not speak CBOR
		})
		counted := &counter{Client: client}
		now := time.Now()
		put := func(name string, v float64, ago time.Duration, dimension, value string) {
			_, err := client.PutMetricData(ctx, &cloudwatch.PutMetricDataInput{Namespace: sdk.String("Shop"), MetricData: []types.MetricDatum{{
				MetricName: &name, Value: &v, Timestamp: sdk.Time(now.Add(-ago)),
				Dimensions: []types.Dimension{{Name: &dimension, Value: &value}}}}})
			require.NoError(t, err)
		}
		put("Requests", 700, 4*time.Minute, "Balancer", "www")
		put("Requests", 900, 2*time.Minute, "Balancer", "www")
		put("Requests", 5000, 2*time.Minute, "Balancer", "other")
		put("CPU", 80, 2*time.Minute, "InstanceId", "i-1")
		put("CPU", 40, 3*time.Minute, "InstanceId", "i-2")
		put("CPU", 1, time.Hour, "InstanceId", "i-3")

		requests, err := aws.CloudWatch(client, aws.Metric{Namespace: "Shop", Name: "Requests", Stat: "Sum", Dimensions: map[string]string{"Balancer": "www"}})
		require.NoError(t, err)
		samples, err := requests.Read(ctx, "www", nil)
		require.NoError(t, err)
		require.Len(t, samples, 1)
		require.Equal(t, 900.0, samples[0].Value)
		require.Empty(t, samples[0].Instance)
		require.WithinDuration(t, now.Add(-90*time.Second), samples[0].At, time.Minute, "the period's end")

		cpu, err := aws.CloudWatch(counted, aws.Metric{Namespace: "Shop", Name: "CPU", Each: true})
		require.NoError(t, err)
		var servers []farm.Server
		for _, id := range []string{"i-1", "i-2", "i-3", "i-4"} {
			servers = append(servers, farm.Server{ID: id, Private: netip.MustParseAddr("10.0.0.1")})
		}
		samples, err = cpu.Read(ctx, "www", servers)
		require.NoError(t, err)
		require.Len(t, samples, 2, "what is missing or too old is left out: %v", samples)
		require.Equal(t, []any{"i-1", 80.0, "i-2", 40.0}, []any{samples[0].Instance, samples[0].Value, samples[1].Instance, samples[1].Value})
		for len(servers) < 501 {
			servers = append(servers, farm.Server{ID: fmt.Sprintf("i-%d", len(servers)+1)})
		}
		counted.calls = 0
		samples, err = cpu.Read(ctx, "www", servers)
		require.NoError(t, err)
		require.Len(t, samples, 2)
		require.Equal(t, 2, counted.calls, "500 instances a call")
		samples, err = cpu.Read(ctx, "www", nil)
		require.NoError(t, err)
		require.Empty(t, samples)
	})

	t.Run("Requests", func(t *testing.T) {
		client := cloudwatch.NewFromConfig(cfg, func(o *cloudwatch.Options) {
			o.Protocol = awsquery.New(schemas.GraniteServiceVersion20100801)
		})
		minute := time.Now().Truncate(time.Minute)
		put := func(namespace, name, balancer string, v float64, ago time.Duration) {
			_, err := client.PutMetricData(ctx, &cloudwatch.PutMetricDataInput{Namespace: &namespace, MetricData: []types.MetricDatum{{
				MetricName: &name, Value: &v, Timestamp: sdk.Time(minute.Add(-ago)),
				Dimensions: []types.Dimension{{Name: sdk.String("LoadBalancer"), Value: &balancer}}}}})
			require.NoError(t, err)
		}
		const alb, nlb, quiet = "app/www/1", "net/www/2", "app/www/3"
		arn := func(name string) provider.Balancer {
			return provider.Balancer{ID: "arn:aws:elasticloadbalancing:us-east-1:1:loadbalancer/" + name}
		}
		cloud := &listed{list: []provider.Balancer{arn(alb), arn(nlb)}}
		s, err := aws.Requests(client, "shop", cloud)
		require.NoError(t, err)
		put("AWS/ApplicationELB", "RequestCount", alb, 600, 3*time.Minute)
		put("AWS/ApplicationELB", "RequestCount", alb, 1200, 2*time.Minute)
		put("AWS/ApplicationELB", "ConsumedLCUs", alb, 1, 2*time.Minute)
		samples, err := s.Read(ctx, "www", nil)
		require.NoError(t, err)
		require.Empty(t, samples, "nothing is known of the other one")
		put("AWS/NetworkELB", "NewFlowCount", nlb, 60, 3*time.Minute)
		put("AWS/NetworkELB", "ConsumedLCUs", nlb, 1, 3*time.Minute)
		samples, err = s.Read(ctx, "www", nil)
		require.NoError(t, err)
		require.Equal(t, []scale.Sample{{Value: 21, At: minute.Add(-2 * time.Minute).UTC()}}, samples, "as old as the oldest")
		require.Equal(t, 1, cloud.calls)
		require.Equal(t, map[string]string{farm.TagFarm: "shop", farm.TagRole: "www"}, cloud.tags)

		cloud.list = []provider.Balancer{arn(quiet)}
		put("AWS/ApplicationELB", "RequestCount", quiet, 600, 3*time.Minute)
		put("AWS/ApplicationELB", "ConsumedLCUs", quiet, 1, 2*time.Minute)
		samples, err = s.Read(ctx, "api", nil)
		require.NoError(t, err)
		require.Equal(t, []scale.Sample{{Value: 0, At: minute.Add(-time.Minute).UTC()}}, samples, "a minute without requests")
		cloud.list = nil
		_, err = s.Read(ctx, "cron", nil)
		require.ErrorContains(t, err, "no balancers")
		_, err = aws.Requests(nil, "", nil)
		for _, want := range []string{"client is nil", "name is empty", "no balancers"} {
			require.ErrorContains(t, err, want)
		}
	})

	t.Run("SQS", func(t *testing.T) {
		client := sqs.NewFromConfig(cfg)
		q, err := client.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: sdk.String("jobs")})
		require.NoError(t, err)
		for range 5 {
			_, err := client.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: q.QueueUrl, MessageBody: sdk.String("work")})
			require.NoError(t, err)
		}
		_, err = client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: q.QueueUrl, MaxNumberOfMessages: 2})
		require.NoError(t, err)
		for all, want := range map[bool]float64{false: 3, true: 5} {
			samples, err := aws.Queue(client, *q.QueueUrl, all).Read(ctx, "worker", nil)
			require.NoError(t, err)
			require.Len(t, samples, 1)
			require.Equal(t, want, samples[0].Value)
		}
		samples, err := aws.Queue(client, *q.QueueUrl+"-gone", false).Read(ctx, "worker", nil)
		require.ErrorContains(t, err, "jobs-gone")
		require.Empty(t, samples, "missing is missing")
	})
}

func TestFaultsAreNamed(t *testing.T) {
	_, err := aws.CloudWatch(nil, aws.Metric{})
	require.ErrorContains(t, err, "client is nil")
	_, err = aws.CloudWatch(cloudwatch.New(cloudwatch.Options{}), aws.Metric{Period: time.Second, Each: true, Dimensions: map[string]string{"InstanceId": "x"}})
	for _, want := range []string{"Namespace is empty", "Name is empty", "Period is 1s", "Dimensions has InstanceId"} {
		require.ErrorContains(t, err, want)
	}
}
