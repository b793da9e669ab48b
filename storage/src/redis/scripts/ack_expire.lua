-- Gives up what was not acknowledged in time, the longest overdue first.
--
-- KEYS  1 what is pending, by its time (zset)  2 the figures (hash)
-- ARGV  1 what the keys of notifications begin with  2 now, s  3 how many at most
-- gives those given up: a notification id, or one with ':' and a scoped user behind it

redis.call('HLEN', KEYS[2])
local late = redis.call('ZRANGEBYSCORE', KEYS[1], 0, ARGV[2], 'LIMIT', 0, ARGV[3])
if #late == 0 then
    return late
end
redis.call('ZREM', KEYS[1], unpack(late))
redis.call('HINCRBY', KEYS[2], 'total_expired', #late)
local given_up = {}
for _, member in ipairs(late) do
    local key, user = ARGV[1] .. string.sub(member, 1, 36), string.sub(member, 38)
    -- A key of a wrong type is somebody else's and does not stop the others.
    if user == '' then
        -- Whose it was is told with it.
        local owner = redis.pcall('HGET', key, 'user')
        if type(owner) == 'string' then
            member = member .. ':' .. owner
        end
        redis.pcall('HDEL', key, 'data', 'sent', 'user')
    else
        redis.pcall('HDEL', key, 'data:' .. user, 'sent:' .. user)
    end
    given_up[#given_up + 1] = member
end
return given_up
