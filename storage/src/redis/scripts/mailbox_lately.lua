-- What was removed and lingers is in a zset, all with the score 0, so that it is ordered by its text: the id with both its
-- numbers in 20 digits, a space, the mark or nothing, a space, the data. The numbers of an id have 64 bits and those of Lua 53,
-- so ids are compared as such texts and never as numbers.
local function padded(id)
    local ms, n = string.match(id, '^(%d+)-(%d+)$')
    return string.rep('0', 20 - #ms) .. ms .. '-' .. string.rep('0', 20 - #n) .. n
end

-- The id of what lingers, as Redis writes it; nil if another put it there.
local function plain(text)
    local ms, n = string.match(string.sub(text, 1, 41), '^0*(%d+)-0*(%d+)$')
    return ms and ms .. '-' .. n
end

-- Where ids begin that were given in the last `ms`, by the server's clock.
local function since(ms)
    local time = redis.call('TIME')
    local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
    return string.format('%020.0f', math.max(now - ms, 0))
end

