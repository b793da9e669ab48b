-- Connections of one tenant are still there, whatever the limits say.
-- KEYS: those of the tenant, then for each connection those of its user
-- ARGV: ttl in milliseconds, whether users have a limit, whether the tenant has one (1 or 0), then the connections
local time = redis.call('TIME')
local ttl = ARGV[1]
local till = time[1] * 1000 + math.floor(time[2] / 1000) + ttl
for at = 4, #ARGV do
  if ARGV[2] == '1' then
    redis.call('ZADD', KEYS[at - 2], till, ARGV[at])
    redis.call('PEXPIRE', KEYS[at - 2], ttl)
  end
  if ARGV[3] == '1' then
    redis.call('ZADD', KEYS[1], till, ARGV[at])
  end
end
if ARGV[3] == '1' then
  redis.call('PEXPIRE', KEYS[1], ttl)
end
return 1
